"""From the name of a model to a folder on disk whose weights have been checked."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from safetensors import SafetensorError

from jedi_diffusion.errors import JeDiError, ModelError
from jedi_diffusion.weights import check_model_folder

PathOrId = str | os.PathLike[Any]

HUB_SETTINGS = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "token")
"""diffusers' settings of a download, of no use once the files are here."""


def checked_folder(
    path_or_id: PathOrId, download: Callable[..., PathOrId], settings: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    """The folder of a model, fetched from the Hub where needed, and the settings to load it with.

    download: diffusers' `DiffusionPipeline.download`; settings: keyword arguments of `from_pretrained`. Only
    safetensors are fetched or loaded. Raises ModelError as `check_model_folder` does.
    """
    hub = {name: value for name, value in settings.items() if name in HUB_SETTINGS}
    rest = {name: value for name, value in settings.items() if name not in HUB_SETTINGS}
    folder, variant = os.fspath(path_or_id), settings.get("variant")
    if not os.path.isdir(folder):
        folder = os.fspath(download(folder, use_safetensors=True, variant=variant, **hub))
    check_model_folder(folder, variant)
    return folder, rest | {"use_safetensors": True}


@contextmanager
def load_errors(path_or_id: PathOrId) -> Iterator[None]:
    """Turns what the libraries raise about a model into a ModelError that names it, with their first line."""
    try:
        yield
    except JeDiError:
        raise
    except (OSError, ValueError, SafetensorError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"The model {os.fspath(path_or_id)} cannot be loaded: {reason}") from error
