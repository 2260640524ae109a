"""Diffusion pipelines: collages from text, scenes around a subject, styles (section 3.1 of the paper).

Letters: B pictures of a batch; W, H a picture's width and height in pixels.

Each picture has a random generator of its own on the CPU, so that neither its batch nor the device changes
the noise that it starts from.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Collection, Iterator, Sequence, Set
from pathlib import Path
from typing import Any

import diffusers
import torch
from PIL import Image
from transformers import CLIPTokenizer

from jedi_diffusion.devices import in_batches, memory_errors, pick_device, pick_dtype
from jedi_diffusion.errors import ModelError
from jedi_diffusion.randomness import seeded_generator
from jedi_diffusion.synthesis.adapters.settings import (
    InpaintingSettings,
    InstructPix2PixSettings,
    PipelineSettings,
    TextToImageSettings,
)
from jedi_diffusion.vision.transformer import (
    Checkpoint,
    content_of,
    explained,
    fingerprint,
    read_index,
    small_files,
)
from jedi_diffusion.weights import check_weights_file, checked_folder, read_json, weight_files

logger = logging.getLogger(__name__)

DRAWING = frozenset({"prompt", "generator", "num_inference_steps", "guidance_scale"})
TOKENIZERS = ("tokenizer", "tokenizer_2", "tokenizer_3")
Size = tuple[int, int]


LEFT_OUT = ("safety_checker",)
"""Components that are not loaded: the checker turns pictures black, which no later stage would notice."""


class PipelineModel:
    """A pipeline of diffusers on its device, with its weights checked, in 16 bits where the device has them.

    takes, refuses: inputs that a pipeline must have for its part, and must not have. Raises ModelError where
    the folder cannot be used, UsageError for a device or format that is not there.
    """

    def __init__(
        self,
        settings: PipelineSettings,
        device: str,
        part: str,
        takes: Set[str],
        refuses: Collection[str] = (),
    ) -> None:
        self.name, self.batch_size = settings.model, settings.batch_size
        self._steps, self._negative = settings.steps, settings.negative_prompt
        self.device = pick_device(settings.device or device)
        self.dtype = pick_dtype(settings.dtype, self.device, "float16")
        checkpoint, pipeline_class = open_pipeline(settings, part, takes, refuses)
        self.fingerprint = fingerprint(checkpoint.identity, settings, self.dtype)
        with explained(self.name), memory_errors(self.name, self.device, self.batch_size):
            self.pipeline: Any = pipeline_class.from_pretrained(
                checkpoint.folder,
                dtype=self.dtype,
                variant=settings.variant,
                use_safetensors=True,
                **_without_extras(pipeline_class),
            )
            if settings.offload and self.device.type != "cpu":
                self.pipeline.enable_model_cpu_offload(device=self.device)
            else:
                self.pipeline.to(self.device)
        self.pipeline.set_progress_bar_config(disable=True)
        if hasattr(getattr(self.pipeline, "vae", None), "enable_slicing"):
            self.pipeline.vae.enable_slicing()  # decoding a batch needs more memory than all before
        self._warned = False

    def work_size(self, size: Size) -> Size:
        """Return the least (W, H) not below `size` that the autoencoder divides."""
        multiple = getattr(self.pipeline, "vae_scale_factor", 8)
        width, height = (-(-side // multiple) * multiple for side in size)
        return width, height

    def draw(
        self, prompts: Sequence[str], seeds: Sequence[int], sizes: Sequence[Size], **inputs: Any
    ) -> list[Image.Image]:
        """B RGB pictures of their `sizes`; only those of one size share a batch.

        inputs: what else the pipeline takes, each a list with an item for each picture, or one value for all.
        """
        self._warn_of_long(prompts)

        def batch_of(places: list[int]) -> list[Image.Image]:
            own = {
                name: [value[place] for place in places] if isinstance(value, list) else value
                for name, value in inputs.items()
            }
            if self._negative is not None:
                own["negative_prompt"] = [self._negative] * len(places)
            if "height" in inspect.signature(self.pipeline.__call__).parameters:
                own["width"], own["height"] = self.work_size(sizes[places[0]])
            with memory_errors(self.name, self.device, self.batch_size), torch.inference_mode():
                pictures = self.pipeline(
                    prompt=[prompts[place] for place in places],
                    generator=[seeded_generator(seeds[place]) for place in places],
                    num_inference_steps=self._steps,
                    **own,
                ).images
            return [
                resized(picture.convert("RGB"), sizes[place])
                for picture, place in zip(pictures, places, strict=True)
            ]

        return in_batches(sizes, self.batch_size, batch_of)

    def _warn_of_long(self, prompts: Sequence[str]) -> None:
        """CLIP's text encoders read 77 tokens, and the words that make a collage stand at the end."""
        tokenizers = [getattr(self.pipeline, name, None) for name in TOKENIZERS]
        known = [each for each in tokenizers if each is not None]
        if self._warned or not known or not all(isinstance(each, CLIPTokenizer) for each in known):
            return
        limit = known[0].model_max_length
        lengths = [len(ids) for ids in known[0](list(prompts), verbose=False)["input_ids"]] if prompts else []
        if max(lengths, default=0) > limit:
            self._warned = True
            logger.warning(
                "%s reads %d tokens of a prompt; one of %d tokens loses its end. Lower stages.prompt_words.",
                *(self.name, limit, max(lengths)),
            )


class TextToImageGenerator(PipelineModel):
    """`ImageGenerator` on any text-to-image pipeline (SDXL in the paper)."""

    def __init__(self, settings: TextToImageSettings, device: str) -> None:
        takes = DRAWING | {"height", "width"}
        super().__init__(settings, device, "generator", takes, ("image", "mask_image", "num_frames"))
        self._guidance = settings.guidance

    def generate(self, prompts: Sequence[str], seeds: Sequence[int], size: Size) -> list[Image.Image]:
        """B RGB pictures of `size` = (W, H)."""
        return self.draw(prompts, seeds, [size] * len(prompts), guidance_scale=self._guidance)


class PipelineInpainter(PipelineModel):
    """`Inpainter` on any text-based inpainting pipeline (Stable Diffusion inpainting in the paper)."""

    def __init__(self, settings: InpaintingSettings, device: str) -> None:
        takes = DRAWING | {"image", "mask_image"}
        super().__init__(settings, device, "inpainter", takes, ("control_image",))
        self._guidance = settings.guidance

    def inpaint(
        self,
        pictures: Sequence[Image.Image],
        masks: Sequence[Image.Image],
        prompts: Sequence[str],
        seeds: Sequence[int],
    ) -> list[Image.Image]:
        """B RGB pictures of their inputs' sizes, filled where the mask is 255; the rest is nearly kept."""
        sizes = [picture.size for picture in pictures]
        return self.draw(
            prompts,
            seeds,
            sizes,
            guidance_scale=self._guidance,
            image=[resized(each, self.work_size(each.size)) for each in pictures],
            mask_image=[each.resize(self.work_size(each.size), Image.Resampling.NEAREST) for each in masks],
        )


class InstructPix2PixStylizer(PipelineModel):
    """`Stylizer` on InstructPix2Pix."""

    def __init__(self, settings: InstructPix2PixSettings, device: str) -> None:
        takes = DRAWING | {"image", "image_guidance_scale"}
        super().__init__(settings, device, "stylizer", takes, ("mask_image",))
        self._guidance, self._image_guidance = settings.guidance, settings.image_guidance

    def stylize(
        self, pictures: Sequence[Image.Image], instructions: Sequence[str], seeds: Sequence[int]
    ) -> list[Image.Image]:
        """B RGB pictures of their inputs' sizes."""
        return self.draw(
            instructions,
            seeds,
            [picture.size for picture in pictures],
            guidance_scale=self._guidance,
            image_guidance_scale=self._image_guidance,
            image=[resized(each, self.work_size(each.size)) for each in pictures],
        )


def resized(picture: Image.Image, size: Size) -> Image.Image:
    """Return the picture at `size` = (W, H), itself where it has that size."""
    return picture if picture.size == size else picture.resize(size, Image.Resampling.LANCZOS)


def _without_extras(pipeline_class: Any) -> dict[str, Any]:
    """Return arguments that leave out what would change pictures after they are made, where the
    class has it.
    """
    extras = {"safety_checker": None, "requires_safety_checker": False, "add_watermarker": False}
    known = inspect.signature(pipeline_class.__init__).parameters
    return {name: value for name, value in extras.items() if name in known}


def open_pipeline(
    settings: PipelineSettings, part: str, takes: Set[str], refuses: Collection[str]
) -> tuple[Checkpoint, Any]:
    """Return the folder of a diffusers pipeline and its class, which must take certain inputs and not take
    others.

    Raises ModelError if it is missing, not safetensors, damaged, or of a class that does not fit the part.
    """
    with explained(settings.model):
        index = read_index(settings, "model_index.json", part)
        pipeline_class = _pipeline_class(index, settings.model)
        inputs = inspect.signature(pipeline_class.__call__).parameters.keys()
        if not takes <= inputs or not inputs.isdisjoint(refuses):
            raise ModelError(
                f"{settings.model} is a {pipeline_class.__name__}, which cannot be the {part}: it must take "
                f"{', '.join(sorted(takes))}" + (f" and no {' or '.join(refuses)}." if refuses else ".")
            )
        hub = {"revision": settings.revision, "variant": settings.variant}
        found, _ = checked_folder(settings.model, pipeline_class.download, hub)
        folder = Path(found)
        files = [folder / "model_index.json"]
        for component in _components(index, settings.model):
            files += _checked_component(folder / component, settings.variant)
        return Checkpoint(folder, f"{pipeline_class.__name__} {content_of(folder, files)}"), pipeline_class


def _pipeline_class(index: dict[str, Any], model: str) -> Any:
    name = index.get("_class_name")
    found = getattr(diffusers, name, None) if isinstance(name, str) else None
    if not (isinstance(found, type) and issubclass(found, diffusers.DiffusionPipeline)):
        raise ModelError(f"{model} asks for the pipeline {name}, which diffusers does not have.")
    return found


def _components(index: dict[str, Any], model: str) -> Iterator[str]:
    """Yield names of the components that are loaded, after a check that none brings code of its own."""
    for name, entry in index.items():
        if name.startswith("_") or name in LEFT_OUT or not isinstance(entry, list) or not any(entry):
            continue
        library = entry[0]
        if library not in ("diffusers", "transformers") and not hasattr(diffusers.pipelines, str(library)):
            raise ModelError(
                f"{model} wants {name} from {library}; only diffusers and transformers are used."
            )
        yield name


def _checked_component(folder: Path, variant: str | None) -> list[Path]:
    """Return all files of a component that are read.

    Raises ModelError for weights that are not safetensors.
    """
    if not (folder / "config.json").is_file():  # a tokenizer or a scheduler: no weights
        return small_files(folder)
    diffusers_own = "_class_name" in read_json(folder / "config.json")
    weights = weight_files(folder, "diffusion_pytorch_model" if diffusers_own else "model", variant)
    for file in weights:
        check_weights_file(file)
    return [*weights, *small_files(folder)]
