"""Settings of the stages, each with its unit and range. Defaults are the paper's where it gives a value."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, PositiveInt, model_validator

from jedi_diffusion.options import Section
from jedi_diffusion.synthesis.seams import SEAM

Fraction = Annotated[float, Field(ge=0, le=1)]
Side = Annotated[int, Field(ge=16, le=4096, multiple_of=8, description="pixels of a side")]
Text = Annotated[str, Field(min_length=1, max_length=300)]

STYLES = (
    "make it a watercolor painting",
    "make it an oil painting",
    "make it a pencil sketch",
    "make it a charcoal drawing",
    "make it a cartoon",
    "make it an anime drawing",
    "make it a comic book panel",
    "make it pixel art",
    "make it a low-poly 3D render",
    "make it a claymation scene",
    "make it a stained-glass window",
    "make it a mosaic",
    "make it a woodcut print",
    "make it pop art",
    "make it an impressionist painting",
    "make it a Japanese woodblock print",
    "make it a crayon drawing by a child",
    "make it a faded vintage photograph",
    "make it a black-and-white photograph",
    "make it a neon-lit night scene",
    "make it a paper cut-out",
    "make it an embroidery",
)


class StageSettings(Section):
    """What the eight stages can be told; unknown keys are refused."""

    # 1, 2: prompts and collages
    collages: PositiveInt = Field(4, le=1000, description="collages of each object")
    collage_suffix: Text = Field("photos of the same", description="appended to a prompt (section 3.1)")
    collage_pictures: Annotated[int, Field(ge=2, le=16)] | None = Field(
        None, description='number written before the suffix ("4 photos of the same"); none is the paper\'s'
    )
    collage_size: Side = 1024
    prompt_words: PositiveInt = Field(60, le=300, description="longest prompt that is accepted")
    # 3: instances
    min_score: Fraction = Field(0.3, description="least score of a detection")
    min_area: Fraction = Field(0.01, description="least part of the collage that an instance covers")
    max_area: Fraction = Field(0.5, description="largest part; above it is the collage as a whole")
    border: Fraction = Field(
        0.004, description="an instance this near to the border or a seam (part of a side) is cut off"
    )
    seam: Fraction | None = Field(
        SEAM, description="part of a line over which colors step, for it to be a seam; none looks for none"
    )
    max_overlap: Fraction = Field(0.2, description="largest part of an instance that another may cover")
    # 4: affinity graph
    affinity: Fraction = Field(
        0.95, description="cosine similarity above which two instances are one subject"
    )
    # 5: scenes
    scene_size: Side = 512
    min_scale: Fraction = Field(
        0.35, gt=0, description="least longer side of a pasted instance, part of the scene's"
    )
    max_scale: Fraction = Field(0.8, gt=0, description="largest")
    max_enlargement: float = Field(
        2.0, ge=1, le=16, description="largest factor by which a cut-out is enlarged"
    )
    # 6: styles
    style_probability: Fraction = 0.5
    styles: tuple[Text, ...] = Field(STYLES, min_length=1)
    # 7, 8: captions and sets
    caption_letters: PositiveInt = Field(300, le=2000, description="longer captions are cut at a word")
    min_pictures: int = Field(2, ge=2, le=16, description="least pictures of a set")
    max_pictures: int = Field(4, ge=2, le=16, description="most pictures of a set")

    @model_validator(mode="after")
    def _ranges_fit(self) -> Self:
        for low, high in (
            ("min_area", "max_area"),
            ("min_scale", "max_scale"),
            ("min_pictures", "max_pictures"),
        ):
            if getattr(self, low) > getattr(self, high):
                raise ValueError(f"{low} is greater than {high}")
        return self
