"""Weights inside installed packages: found without importing those, used only if their digest is known."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from pathlib import Path
from typing import NamedTuple

from jedi_diffusion.errors import ModelError, UsageError


class PackagedFile(NamedTuple):
    """A file inside a package, with its digest, and the extra of this project that installs the package."""

    package: str
    path: str
    sha256: str
    extra: str

    def find(self) -> Path:
        """Return the file's path, after its digest is checked.

        Raises UsageError where the package is missing, ModelError where its file is missing or another one.
        """
        name = self.package.replace("_", "-")
        spec = importlib.util.find_spec(self.package)
        if spec is None or not spec.submodule_search_locations:
            raise UsageError(
                f"The package {name} is not installed: pip install 'jedi-diffusion[{self.extra}]'."
            )
        path = Path(spec.submodule_search_locations[0]) / self.path
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise ModelError(f"{path} cannot be read ({error.strerror}): install {name} again.") from error
        if found != self.sha256:
            raise ModelError(
                f"{path} has the SHA-256 {found[:16]}..., not {self.sha256[:16]}..., so it was not opened: "
                f"install {name} again."
            )
        return path


def cache_folder() -> Path:
    """Return XDG_CACHE_HOME/jedi-diffusion, else ~/.cache/jedi-diffusion: a place for what can be made again.

    A relative XDG_CACHE_HOME is ignored, as its specification demands. The folder need not exist yet.
    """
    given = os.environ.get("XDG_CACHE_HOME", "")
    home = Path(given) if os.path.isabs(given) else Path(os.path.expanduser("~/.cache"))
    return home / "jedi-diffusion"
