"""Settings of the models that run here, each with its unit and range. Defaults are the paper's models.

The paper names families, but no sizes, steps or scales: those are ours, from what the families' own papers
report and recommend.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt

from jedi_diffusion.recipes import Section

DType = Literal["auto", "float32", "bfloat16", "float16"]
Name = Annotated[str, Field(min_length=1, max_length=500)]
Threshold = Annotated[float, Field(ge=0, lt=1)]
Scale = Annotated[float, Field(ge=0, le=100)]
PLACE = {"kind", "model", "revision", "variant", "device", "dtype", "offload", "batch_size"}
"""Settings that do not decide what is answered (`dtype` does, by what it comes to on the device)."""


class PlainSettings(Section):
    """Of a model that has nothing to be set."""

    kind: str


class TemplateSettings(PlainSettings):
    """scenes: what may follow an object's name ("on the beach"); a short list where none is given."""

    scenes: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)] | None = None


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
        """The settings on which answers depend, beside the weights, as plain JSON values."""
        return self.model_dump(mode="json", exclude=PLACE)


class InstructSettings(LocalSettings):
    """A language model that follows instructions, in place of ChatGPT.

    template: further values for the chat template ({"enable_thinking": false}).
    """

    kind: Literal["instruct"] = "instruct"
    model: Name = "Qwen/Qwen2.5-7B-Instruct"
    temperature: Annotated[float, Field(ge=0, le=2)] = Field(1.0, description="0 takes the likeliest word")
    top_p: Annotated[float, Field(gt=0, le=1)] = Field(
        0.95, description="part of the probability that is drawn from, the likeliest words first"
    )
    max_new_tokens: PositiveInt = Field(2500, le=32768, description="tokens of an answer")
    template: dict[str, Any] = Field(default_factory=dict)


class PipelineSettings(LocalSettings):
    """What diffusion pipelines have. variant: diffusers' ("fp16" loads the files that are saved so)."""

    variant: Name | None = None
    steps: PositiveInt = Field(50, le=1000, description="denoising steps")
    negative_prompt: Annotated[str, Field(max_length=1000)] | None = None


class TextToImageSettings(PipelineSettings):
    """Any text-to-image pipeline of diffusers."""

    kind: Literal["text-to-image"] = "text-to-image"
    model: Name = "stabilityai/stable-diffusion-xl-base-1.0"
    guidance: Scale = Field(5.0, description="scale of classifier-free guidance")
    batch_size: PositiveInt = Field(4, le=1024)


class InpaintingSettings(PipelineSettings):
    """Any text-based inpainting pipeline of diffusers."""

    kind: Literal["inpainting"] = "inpainting"
    model: Name = "stable-diffusion-v1-5/stable-diffusion-inpainting"
    guidance: Scale = Field(7.5, description="scale of classifier-free guidance")


class InstructPix2PixSettings(PipelineSettings):
    """InstructPix2Pix; its paper calls the scales s_T and s_I."""

    kind: Literal["instruct-pix2pix"] = "instruct-pix2pix"
    model: Name = "timbrooks/instruct-pix2pix"
    guidance: Scale = Field(7.5, description="scale of the instruction")
    image_guidance: Annotated[float, Field(ge=1, le=100)] = Field(1.5, description="scale of the picture")


class GroundingDinoSettings(LocalSettings):
    """Grounding DINO. Its attention is written for float32 only."""

    kind: Literal["grounding-dino"] = "grounding-dino"
    model: Name = "IDEA-Research/grounding-dino-base"
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
    model: Name = "facebook/sam-vit-huge"
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
