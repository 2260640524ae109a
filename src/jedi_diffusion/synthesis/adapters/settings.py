"""Settings of the language and diffusion models that run here. Defaults are the paper's models.

The paper names families, but no sizes, steps or scales: those are ours, from what the families' own papers
report and recommend.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt

from jedi_diffusion.options import Section
from jedi_diffusion.vision.settings import LocalSettings, Name

Scale = Annotated[float, Field(ge=0, le=100)]


class PlainSettings(Section):
    """Of a model that has nothing to be set."""

    kind: str


class TemplateSettings(PlainSettings):
    """scenes: what may follow an object's name ("on the beach"); a short list where none is given."""

    scenes: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)] | None = None


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
