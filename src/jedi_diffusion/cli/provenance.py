"""`jedi provenance`: what pictures say of where they come from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import tyro

from jedi_diffusion.cli import show_notices
from jedi_diffusion.errors import UsageError

if TYPE_CHECKING:
    from jedi_diffusion.provenance import Manifest, Provenance, Watermark


@dataclass(frozen=True)
class ProvenanceOptions:
    """Say what pictures hold of where they come from: C2PA manifest, time stamp, watermark, parameters.

    What is not found proves nothing: each of these can be taken out of a file.
    """

    pictures: tyro.conf.Positional[tuple[str, ...]]
    """Pictures to look at."""
    json: bool = False
    """Print one JSON array."""


def run(arguments: list[str]) -> None:
    """Look and print. Raises PictureError."""
    given = tyro.cli(ProvenanceOptions, args=arguments, prog="jedi provenance")
    if not given.pictures:
        raise UsageError("No picture is given: name one or several.")
    show_notices()
    from jedi_diffusion.provenance import examine

    found = [examine(path) for path in given.pictures]
    if given.json:
        print(json.dumps([each.record() for each in found], indent=2))
    else:
        print("\n\n".join(map(text_of, found)))


def text_of(found: Provenance) -> str:
    """Return what was found in lines."""
    return "\n".join(
        [
            found.file,
            f"  Manifest:    {_manifest(found.manifest, found.remark)}",
            f"  Time stamp:  {_time(found.manifest)}",
            f"  Watermark:   {_watermark(found.watermark)}",
            f"  Software:    {found.software or 'none'}",
            f"  Parameters:  {_parameters(found.parameters)}",
        ]
    )


def _manifest(manifest: Manifest | None, remark: str | None) -> str:
    if manifest is None:
        return remark or "none"
    signed = f"signed by {manifest.signer or 'somebody without a name'}"
    issuer = f" ({manifest.issuer})" if manifest.issuer else ""
    said = f"; {manifest.action}" if manifest.action else ""
    return "; ".join([f"{manifest.state}, {signed}{issuer}{said}", *manifest.faults])


def _time(manifest: Manifest | None) -> str:
    return "none" if manifest is None or manifest.time is None else manifest.time


def _watermark(mark: Watermark) -> str:
    reach = f"agreement {mark.agreement:.1f}, from {mark.threshold:g} on it is one"
    if not mark.found:
        return f"none ({reach})"
    cut = min(mark.part) < 1
    left = f"; cut to about {mark.part[0]:.0%} across and {mark.part[1]:.0%} down" if cut else ""
    return f"that of jedi-diffusion ({reach}{left})"


def _parameters(parameters: dict[str, object] | None) -> str:
    if parameters is None:
        return "none"
    model, prompt, seed = (parameters.get(name) for name in ("model", "prompt", "seed"))
    name = model.get("name") if isinstance(model, dict) else None
    return f"{parameters.get('program')}, model {name}, prompt {prompt!r}, seed {seed}"
