"""Settings of the vision models that run here, with units and ranges. Defaults are the paper's models."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt

from jedi_diffusion.options import DType, Section

Name = Annotated[str, Field(min_length=1, max_length=500)]
Threshold = Annotated[float, Field(ge=0, lt=1)]
PLACE = {"kind", "model", "revision", "variant", "device", "dtype", "offload", "batch_size"}
"""Settings that do not affect the output (`dtype` does, by what it comes to on the device)."""
SCORING_CLIP, SCORING_DINO = "openai/clip-vit-base-patch32", "facebook/dino-vits16"
"""What the paper scores with."""
GROUNDING_DINO, SAM = "IDEA-Research/grounding-dino-base", "facebook/sam-vit-huge"
"""What finds subjects: the paper names the families, not the sizes."""


class LocalSettings(Section):
    """What all local models have.

    model: a folder as transformers or diffusers save it, or an id on the Hugging Face Hub. revision: branch,
    tag or commit there.
    """

    model: Name
    revision: Name | None = None
    device: Name | None = Field(None, description='"cpu", "cuda", "cuda:1", ...; none is the run\'s own')
    dtype: DType = Field("auto", description="number format; auto is a 16-bit one on CUDA, float32 elsewhere")
    offload: bool = Field(False, description="keep the weights in main memory while another model works")
    batch_size: PositiveInt = Field(8, le=1024, description="items that the model is given at the same time")

    def deciding(self) -> dict[str, Any]:
        """Return the settings on which answers depend, beside the weights, as plain JSON values."""
        return self.model_dump(mode="json", exclude=PLACE)


class GroundingDinoSettings(LocalSettings):
    """Grounding DINO. Its attention is written for float32 only."""

    kind: Literal["grounding-dino"] = "grounding-dino"
    model: Name = GROUNDING_DINO
    dtype: Literal["float32"] = "float32"
    box_threshold: Threshold = Field(0.3, description="least score of a box")
    text_threshold: Threshold = Field(
        0.25, description="least score of a word of the name that a box must have"
    )
    max_boxes: PositiveInt = Field(50, le=900, description="most boxes of a picture, the surest first")


class SamSettings(LocalSettings):
    """The Segment Anything Model (the first one), in float32: bfloat16 would round boxes to 4 pixels.

    box_batch: boxes of a picture at the same time.
    """

    kind: Literal["sam"] = "sam"
    model: Name = SAM
    dtype: Literal["float32"] = "float32"
    batch_size: PositiveInt = Field(4, le=1024)
    box_batch: PositiveInt = Field(64, le=1024)


class ClipSettings(LocalSettings):
    """CLIP. In float32, because affinities are compared with 0.95."""

    kind: Literal["clip"] = "clip"
    model: Name = "openai/clip-vit-large-patch14"
    dtype: DType = "float32"
    batch_size: PositiveInt = Field(64, le=4096)


class Blip2Settings(LocalSettings):
    """BLIP-2. Captions are the likeliest that a beam search finds, as in its paper."""

    kind: Literal["blip-2"] = "blip-2"
    model: Name = "Salesforce/blip2-opt-2.7b"
    beams: Annotated[int, Field(ge=1, le=50)] = 5
    max_new_tokens: Annotated[int, Field(ge=1, le=500)] = Field(40, description="tokens of a caption")


class DinoSettings(LocalSettings):
    """DINO (ViT-S/16), which the paper scores with."""

    kind: Literal["dino"] = "dino"
    model: Name = SCORING_DINO
    dtype: Literal["float32"] = "float32"
