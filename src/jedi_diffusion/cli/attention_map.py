"""`jedi generate --attention-map x,y`: the point in words, and the figure beside a picture (Figure 5)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jedi_diffusion.errors import UsageError

if TYPE_CHECKING:
    from PIL import Image

    from jedi_diffusion.cli.options import GenerateOptions
    from jedi_diffusion.joint.record import AttentionRecord

Point = tuple[float, float]


def read_point(text: str, size: int | None) -> Point:
    """(x, y) as fractions of the side. Two whole numbers are pixels, with a decimal point they are fractions.

    size: side in pixels of the target; None while the model has not said: pixels are then not yet held
    against it. Raises UsageError.
    """
    found = re.fullmatch(r"\s*([0-9.]+)\s*,\s*([0-9.]+)\s*", text)
    parts = found.groups() if found else ()
    try:
        x, y = map(float, parts)
    except ValueError as error:
        raise UsageError(
            f"--attention-map is {text!r}, but must be a point x,y: pixels (64,80) or fractions (0.5,0.62)."
        ) from error
    if any("." in part for part in parts):
        if not (0 <= x <= 1 and 0 <= y <= 1):
            raise UsageError(
                f"--attention-map {text} lies outside the picture: fractions go from 0.0 to 1.0, "
                "and pixels are whole numbers."
            )
        return x, y
    if size is None:
        return 0.0, 0.0
    if not (x < size and y < size):
        raise UsageError(
            f"--attention-map {text} lies outside the picture: pixels go from 0,0 to {size - 1},{size - 1}."
        )
    return (x + 0.5) / size, (y + 0.5) / size


def map_file(file: str) -> str:
    """Return the name of the figure that belongs to a picture's file: "a-robot_0-attention.png"."""
    return f"{Path(file).stem}-attention.png"


def new_record(given: GenerateOptions) -> AttentionRecord | None:
    """Return a record for one call of the pipeline, None where no map is asked for. Raises UsageError."""
    if given.attention_map is None:
        return None
    from jedi_diffusion.joint.record import AttentionRecord

    return AttentionRecord(read_point(given.attention_map, given.size))


def draw(
    given: GenerateOptions,
    record: AttentionRecord,
    number: int,
    target: Image.Image,
    references: Sequence[Image.Image],
    name: str,
) -> Image.Image:
    """Return the figure of target `number` of a call; name: what it shows, in words."""
    from jedi_diffusion.attention_figure import attention_figure

    title = (
        f"Where coupled attention looks: {name}. Coupling {given.coupling}; mean over heads, layers of one "
        f"resolution, and all {given.steps} steps."
    )
    return attention_figure(target, references, record.maps(number), record.point, title)
