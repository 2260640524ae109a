"""What a picture's file says of where it comes from: signature, watermark, and the parameters it carries."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image

from jedi_diffusion.credentials import media_type
from jedi_diffusion.errors import PictureError
from jedi_diffusion.pictures import PNG_START, SOFTWARE_KEY, open_picture, read_parameters
from jedi_diffusion.watermark import THRESHOLD, read_mark

MANIFEST_SIGN = b"c2pa"
"""Stands in every file with a C2PA manifest; its label, and the type of the box around it."""
EXTRA = "pip install 'jedi-diffusion[credentials]'"


@dataclass(frozen=True)
class Manifest:
    """A C2PA manifest; fields that it does not have are None.

    state: what the library says of it: Valid (as it was signed, by somebody unknown), Trusted, or Invalid.
    faults: what does not fit. time: of its time stamp, which an authority gives; jedi-diffusion asks none.
    """

    state: str
    signer: str | None
    issuer: str | None
    program: str | None
    action: str | None
    time: str | None
    faults: tuple[str, ...] = ()


@dataclass(frozen=True)
class Watermark:
    """See `watermark.Mark`; part: of the sides that is left, (across, down)."""

    found: bool
    agreement: float
    threshold: float
    part: tuple[float, float]


@dataclass(frozen=True)
class Provenance:
    """All that a file says. remark: why a manifest is not read. software: the mark beside the pixels."""

    file: str
    manifest: Manifest | None
    remark: str | None
    watermark: Watermark
    software: str | None
    parameters: dict[str, Any] | None

    def record(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return asdict(self)


def examine(path: str | Path) -> Provenance:
    """Return what a PNG, JPEG, WebP or another picture says. Raises PictureError for what is no picture."""
    picture = open_picture(path)
    data = Path(path).read_bytes()
    manifest, remark = _manifest(data)
    mark = read_mark(picture)
    return Provenance(
        file=str(path),
        manifest=manifest,
        remark=remark,
        watermark=Watermark(mark.is_there, round(mark.agreement, 2), THRESHOLD, mark.part),
        software=_software(data),
        parameters=_parameters(path, data),
    )


def _manifest(data: bytes) -> tuple[Manifest | None, str | None]:
    """Return the manifest, or why there is one that is not read."""
    if MANIFEST_SIGN not in data:
        return None, None
    try:
        import c2pa
    except ModuleNotFoundError:
        return None, f"There is a C2PA manifest, and nothing here that reads it: {EXTRA}."
    try:
        with c2pa.Reader(media_type(data), io.BytesIO(data)) as reader:
            state, found = reader.get_validation_state(), reader.get_active_manifest()
            said = json.loads(reader.json())
    except c2pa.C2paError as error:
        if "ManifestNotFound" in f"{type(error).__name__} {error}":  # the letters stood there by chance
            return None, None
        return None, f"Its C2PA manifest cannot be read: {error}"
    signature = found.get("signature_info", {})
    programs = [each.get("name") for each in found.get("claim_generator_info", ())]
    faults = [each.get("explanation") or each.get("code") for each in said.get("validation_status", ())]
    return Manifest(
        state=str(state),
        signer=signature.get("common_name"),
        issuer=signature.get("issuer"),
        program=next(iter(programs), None),
        action=_action(found),
        time=signature.get("time"),
        faults=tuple(str(each) for each in faults),
    ), None


def _action(manifest: dict[str, Any]) -> str | None:
    """Return what the first action says of itself, such as "made with jedi-diffusion, model toybox"."""
    for assertion in manifest.get("assertions", ()):
        for action in assertion.get("data", {}).get("actions", ()):
            return action.get("description") or action.get("action")
    return None


def _software(data: bytes) -> str | None:
    """Return the name of the program in a PNG's text or in EXIF."""
    with Image.open(io.BytesIO(data)) as picture:
        said = picture.info.get(SOFTWARE_KEY) or picture.getexif().get(ExifTags.Base.Software)
    return None if said is None else str(said)


def _parameters(path: str | Path, data: bytes) -> dict[str, Any] | None:
    """Return the settings that a PNG of ours carries; damaged ones count as none."""
    if not data.startswith(PNG_START):
        return None
    try:
        return read_parameters(path)
    except PictureError:
        return None
