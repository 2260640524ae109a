"""The nodes, by ComfyUI's V3 schema. Importing this file loads no model, diffusers or transformers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import folder_paths
from comfy_api.latest import ComfyExtension, io, ui

from jedi_diffusion.app.session import prompts_of
from jedi_diffusion.errors import JeDiError, UsageError
from jedi_diffusion.evaluation.judging import EncodersName
from jedi_diffusion.options import MAX_SEED, SizedSampling

from .bridge import JointModel, Progress, to_images, to_masks, to_pictures
from .settings import MAIN, OTHERS, inputs_of, sampling_of

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from jedi_diffusion.evaluation.likeness import Likeness
    from jedi_diffusion.pipeline import JeDiPipeline
    from jedi_diffusion.references import Reference

CATEGORY = "JeDi"
BUNDLED = "toybox (bundled)"
SIDE = {"default": 0, "min": 0, "max": 2048, "step": 8}
"""Of a picture in pixels; 0 is the model's own."""
SEED = {"default": 0, "min": 0, "max": MAX_SEED, "control_after_generate": True}
ENCODERS: dict[str, EncodersName] = {
    "toybox (bundled)": "toybox",
    "EfficientNet-Lite2 (photos)": "lite2",
    "CLIP and DINO (photos)": "pretrained",
}
"""What reads identity, and what `jedi evaluate score` calls it."""

Model = io.Custom("JEDI_MODEL")
References = io.Custom("JEDI_REFERENCES")
Settings = io.Custom("JEDI_SETTINGS")


def model_folders() -> dict[str, str]:
    """Return the diffusers folders below ComfyUI's `models/diffusers`, by their name there."""
    found = {}
    for base in folder_paths.get_folder_paths("diffusers"):
        for folder, _, files in os.walk(base, followlinks=True):
            if "model_index.json" in files:
                found[Path(folder).relative_to(base).as_posix()] = folder
    return found


def named(model: str, folder: str) -> str:
    """Return the name that jedi-diffusion knows a model by; a folder that is typed in goes first."""
    if folder.strip():
        return folder.strip()
    return "toybox" if model == BUNDLED else model_folders().get(model, model)


class JediLoadModel(io.ComfyNode):
    """A joint model: bundled, a diffusers folder, or a Hub id."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="JediLoadModel",
            display_name="Load Joint Model (JeDi)",
            category=CATEGORY,
            description="A model that draws the subject of reference photos: the bundled one, a diffusers "
            "folder (FLUX.2 [klein], FLUX.1, SD3, SD 1.x, 2.x, SDXL, or one trained by `jedi train`), or "
            "a Hub id.",
            inputs=[
                io.Combo.Input(
                    "model",
                    options=[BUNDLED, *sorted(model_folders())],
                    default=BUNDLED,
                    tooltip="The bundled model, or a diffusers folder in ComfyUI's models/diffusers.",
                ),
                io.String.Input(
                    "folder",
                    default="",
                    tooltip="A diffusers folder elsewhere, or a Hub id; goes before `model`.",
                ),
                io.Combo.Input("dtype", options=["auto", "float32", "float16", "bfloat16"], default="auto"),
            ],
            outputs=[
                Model.Output("joint_model", display_name="joint model"),
                io.String.Output(
                    "about",
                    display_name="about",
                    tooltip="Its family and what it does where nothing is said.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, model: str, folder: str) -> bool | str:
        from jedi_diffusion.models import check_model_name

        try:
            check_model_name(named(model, folder))
        except JeDiError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, model: str, folder: str, dtype: str) -> io.NodeOutput:
        import torch
        from comfy import model_management

        from jedi_diffusion import devices, models

        name = named(model, folder)
        number_format = devices.pick_dtype(dtype, model_management.get_torch_device())
        pipe = models.load_model(name, torch.device("cpu"), number_format)
        said = about(name, pipe)
        return io.NodeOutput(JointModel(name, pipe), said, ui=ui.PreviewText(said))


def about(name: str, pipe: JeDiPipeline) -> str:
    """Return the family of a model, the size of its pictures, and its own settings, in a line."""
    from jedi_diffusion.models import own_size

    own, network = pipe.own_sampling, type(pipe.network).__name__
    return (
        f"{name}: family {type(pipe.backbone).__name__.removesuffix('Backbone')} ({network}), pictures of "
        f"{own_size(pipe)} pixels, {own.steps} steps, guidance {own.guidance:g} ({own.guidance_mode}), "
        f"coupling {pipe.own_coupling}."
    )


class JediReference(io.ComfyNode):
    """Photos of the subject, and how they are read; nodes are chained for photos of different kinds."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="JediReference",
            display_name="Reference (JeDi)",
            category=CATEGORY,
            description="Photos of the subject. Chain several of these, each with its own mask and strength.",
            inputs=[
                io.Image.Input("image", tooltip="One or several photos of the subject."),
                io.Mask.Input("mask", optional=True, tooltip="1 on the subject: nothing else is read."),
                References.Input("references", optional=True, tooltip="References that come before these."),
                io.String.Input("caption", default="", tooltip="What they show: a robot."),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.05,
                    max=100.0,
                    step=0.05,
                    tooltip="How much they count: 2 as if they were given twice.",
                ),
            ],
            outputs=[References.Output("chained", display_name="references")],
        )

    @classmethod
    def execute(
        cls,
        image: Tensor,
        caption: str,
        strength: float,
        mask: Tensor | None = None,
        references: tuple[Reference, ...] = (),
    ) -> io.NodeOutput:
        from jedi_diffusion.references import Reference

        pictures = to_pictures(image)
        masks = to_masks(mask, len(pictures), pictures[0].size)
        pairs = zip(pictures, masks, strict=True)
        new = [Reference(picture, caption.strip(), drawn, strength) for picture, drawn in pairs]
        return io.NodeOutput((*references, *new))


class JediSettings(io.ComfyNode):
    """The settings of sampling that are seldom changed."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="JediSettings",
            display_name="More Settings (JeDi)",
            category=CATEGORY,
            description="Settings of sampling that the nodes that sample do not have themselves.",
            inputs=inputs_of(OTHERS),
            outputs=[Settings.Output("settings", display_name="settings")],
        )

    @classmethod
    def execute(cls, **values: Any) -> io.NodeOutput:
        return io.NodeOutput(values)


SAMPLING = (
    Model.Input("joint_model", tooltip="From Load Joint Model."),
    References.Input(
        "references", optional=True, tooltip="From Reference; without them the prompt alone decides."
    ),
    Settings.Input("settings", optional=True, tooltip="From More Settings."),
)
"""What the nodes that sample are given by others."""


def calls_sampling(
    pipe: JeDiPipeline, main: dict[str, Any], settings: dict[str, Any] | None, width: int, height: int
) -> SizedSampling:
    """Return how pictures are computed. Raises UsageError."""
    from jedi_diffusion.models import own_size

    chosen = sampling_of(pipe.own_sampling, {**(settings or {}), **main})
    side = 0 if width and height else own_size(pipe)
    return chosen.at(height or side, width or side)


class JediGenerate(io.ComfyNode):
    """New pictures of the references' subject."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="JediGenerate",
            display_name="Generate (JeDi)",
            category=CATEGORY,
            description="New pictures of the references' subject: the same as `jedi generate` makes with "
            "these settings.",
            inputs=[
                *SAMPLING,
                io.String.Input(
                    "prompts",
                    multiline=True,
                    default="a robot on the beach",
                    tooltip="What to show, one a line.",
                ),
                io.Int.Input("seed", tooltip="Picture k of every prompt has seed + k.", **SEED),
                io.Int.Input("images_per_prompt", default=1, min=1, max=64),
                *inputs_of(MAIN),
                io.Boolean.Input(
                    "joint_targets",
                    default=False,
                    tooltip="All pictures share one set: same subject throughout.",
                ),
                io.Int.Input("width", tooltip="Pixels; 0: the model's own.", **SIDE),
                io.Int.Input("height", tooltip="Pixels; 0: the model's own.", **SIDE),
                io.Int.Input(
                    "at_once",
                    default=4,
                    min=1,
                    max=64,
                    tooltip="Pictures of one call: more is faster, and larger.",
                ),
                io.Boolean.Input("previews", default=True, tooltip="Show what pictures are becoming."),
            ],
            outputs=[io.Image.Output("images", display_name="images")],
        )

    @classmethod
    def execute(
        cls,
        joint_model: JointModel,
        prompts: str,
        seed: int,
        images_per_prompt: int,
        joint_targets: bool,
        width: int,
        height: int,
        at_once: int,
        previews: bool,
        references: tuple[Reference, ...] = (),
        settings: dict[str, Any] | None = None,
        **main: Any,
    ) -> io.NodeOutput:
        from jedi_diffusion.app.runner import PipelineRunner
        from jedi_diffusion.calls import Call, first_seed

        wanted = prompts_of(prompts)
        if not wanted:
            raise UsageError("There is no prompt: write what to show, one a line.")
        pipe = joint_model.ready()
        how = calls_sampling(pipe, main, settings, width, height)
        firsts = [first_seed(seed, place, images_per_prompt, joint_targets) for place in range(len(wanted))]
        pairs = [
            (text, first + k)
            for text, first in zip(wanted, firsts, strict=True)
            for k in range(images_per_prompt)
        ]
        most = len(pairs) if joint_targets else at_once
        batches = [pairs[start : start + most] for start in range(0, len(pairs), most)]
        progress = Progress(len(batches) * how.steps, previews)
        runner, made = PipelineRunner(pipe), []
        for batch in batches:
            texts, seeds = zip(*batch, strict=True)
            call = Call(texts, seeds, list(references), (), how, joint_targets, previews)
            made += runner.run(call, progress.after_step)
            progress.before += how.steps
        return io.NodeOutput(to_images(made))


class JediAttentionMap(io.ComfyNode):
    """Where a point of a new picture looks in the references (Figure 5 of the paper)."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="JediAttentionMap",
            display_name="Attention Map (JeDi)",
            category=CATEGORY,
            description="One picture, and a figure of where coupled attention looks in the references from a "
            "point of it.",
            inputs=[
                *SAMPLING,
                io.String.Input("prompt", multiline=True, default="a robot on the beach"),
                io.Int.Input("seed", **SEED),
                io.Float.Input("x", default=0.5, min=0.0, max=1.0, step=0.01, tooltip="Share of the width."),
                io.Float.Input("y", default=0.5, min=0.0, max=1.0, step=0.01, tooltip="Share of the height."),
                *inputs_of(MAIN),
            ],
            outputs=[
                io.Image.Output("image", display_name="image"),
                io.Image.Output("figure", display_name="figure"),
            ],
        )

    @classmethod
    def execute(
        cls,
        joint_model: JointModel,
        prompt: str,
        seed: int,
        x: float,
        y: float,
        references: tuple[Reference, ...] = (),
        settings: dict[str, Any] | None = None,
        **main: Any,
    ) -> io.NodeOutput:
        from jedi_diffusion.attention_figure import attention_figure
        from jedi_diffusion.calls import Call, run_call
        from jedi_diffusion.joint.record import AttentionRecord
        from jedi_diffusion.pictures import fit_square

        text = " ".join(prompt.split())
        pipe = joint_model.ready()
        how = calls_sampling(pipe, main, settings, 0, 0)
        record, progress = AttentionRecord((x, y)), Progress(how.steps)
        call = Call([text], [seed], list(references), (), how)
        (made,) = run_call(pipe, call, lambda step, _: progress.after_step(step, tuple), record)
        shown = [fit_square(each, how.width) for each in pictures_of(references)]
        title = (
            f"Where coupled attention looks: {text}. Mean over heads, layers of one resolution, and steps."
        )
        figure = attention_figure(made, shown, record.maps(0), record.point, title)
        return io.NodeOutput(to_images([made]), to_images([figure]))


class JediScore(io.ComfyNode):
    """How like the references pictures are, and whether they are copies."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="JediScore",
            display_name="Score (JeDi)",
            category=CATEGORY,
            description="Mean cosine of features of pictures and references, distance to the nearest "
            "reference, and how well prompts are shown.",
            inputs=[
                io.Image.Input("images"),
                References.Input("references"),
                io.Combo.Input("encoder", options=list(ENCODERS), default=next(iter(ENCODERS))),
                io.String.Input(
                    "prompts",
                    multiline=True,
                    default="",
                    tooltip="None, one for all, or one for each, a line each.",
                ),
            ],
            outputs=[
                io.Float.Output(
                    "identity", display_name="identity", tooltip="Mean over the pictures, -1 to 1."
                ),
                io.String.Output("table", display_name="table"),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls, images: Tensor, references: tuple[Reference, ...], encoder: str, prompts: str
    ) -> io.NodeOutput:
        from comfy import model_management

        from jedi_diffusion.evaluation.judging import load_encoders
        from jedi_diffusion.evaluation.likeness import likeness
        from jedi_diffusion.vision.settings import SCORING_CLIP, SCORING_DINO

        judges = load_encoders(
            [ENCODERS[encoder]], SCORING_CLIP, SCORING_DINO, str(model_management.get_torch_device())
        )
        texts = prompts_of(prompts)
        found = likeness(to_pictures(images), pictures_of(references), judges, texts)
        table = "\n".join(f"{number}: {said(each)}" for number, each in enumerate(found, start=1))
        mean = sum(each.identity for each in found) / len(found)
        return io.NodeOutput(mean, table, ui=ui.PreviewText(table))


def pictures_of(references: Sequence[Reference]) -> list[Image.Image]:
    """Return the pictures of references, without their masks."""
    from jedi_diffusion.inputs import to_image

    return [to_image(each.picture, number) for number, each in enumerate(references, start=1)]


def said(each: Likeness) -> str:
    """Return the score of a picture in words."""
    copy = ", a copy" if each.is_copy else ""
    prompt = "" if each.prompt is None else f", prompt {each.prompt:.3f}"
    return (
        f"identity {each.identity:.3f}{prompt}, distance {each.distance:.3f} from the nearest reference{copy}"
    )


class JediExtension(ComfyExtension):
    """All nodes."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [JediLoadModel, JediReference, JediSettings, JediGenerate, JediAttentionMap, JediScore]


async def comfy_entrypoint() -> JediExtension:
    """Return the extension; ComfyUI calls this when it has loaded the package."""
    return JediExtension()
