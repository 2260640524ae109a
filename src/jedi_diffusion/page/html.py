"""One HTML file with text, tables and pictures: no script, no request, light or dark."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from jedi_diffusion.page.charts import Bars, Lines
from jedi_diffusion.page.tables import Table
from jedi_diffusion.pictures import to_rgb

TEMPLATE = Path(__file__).with_name("page.html.jinja")
JPEG_QUALITY = 85


@dataclass(frozen=True)
class Text:
    """Paragraphs under a heading."""

    title: str
    paragraphs: Sequence[str]


@dataclass(frozen=True)
class Strip:
    """Pictures side by side, each with what stands below it; `title` and `note` stand above.

    side: pixels of the longer side of embedded pictures, at most; None is the gallery's.
    """

    title: str
    pictures: Sequence[tuple[Image.Image, str]]
    note: str = ""
    side: int | None = None


@dataclass(frozen=True)
class Gallery:
    """Strips under a heading. side: pixels of the longer side of embedded pictures, at most."""

    title: str
    strips: Sequence[Strip]
    note: str = ""
    side: int = 224


Part = Text | Table | Gallery | Bars | Lines


def render_page(title: str, summary: str, parts: Sequence[Part]) -> str:
    """Return the page as HTML. All text is escaped; pictures are embedded as JPEG."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["kind"] = lambda part: type(part).__name__
    environment.filters["embedded"] = embedded
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(title=title, summary=summary, parts=parts)


def embedded(picture: Image.Image, side: int) -> str:
    """Return the picture as a data URI, made smaller where its longer side has more than `side` pixels."""
    shown = to_rgb(picture)
    shown.thumbnail((side, side), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    shown.save(data, format="JPEG", quality=JPEG_QUALITY)
    return data_uri(data.getvalue(), "jpeg")


def data_uri(file: bytes, kind: str) -> str:
    """Return a picture file of a kind, as "png", as a data URI."""
    return f"data:image/{kind};base64,{base64.b64encode(file).decode()}"
