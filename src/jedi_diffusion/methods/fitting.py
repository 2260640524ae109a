"""Fitting to the references: one task for all finetuning methods, on sets of one.

Letters: P pictures; C, H, W a latent's channels, height, width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from jedi_diffusion.joint.loss import JointLoss
from jedi_diffusion.randomness import spawn_generators
from jedi_diffusion.sets import SetBatch
from jedi_diffusion.trainer.loop import Part, Task, Trainer
from jedi_diffusion.trainer.processes import Processes
from jedi_diffusion.trainer.settings import Schedule, Settings

SAMPLE_MIN_SNR = 20.0
"""Models of clean latents would count nearly clean pictures a thousand times; this caps it."""


@dataclass(frozen=True)
class FitSettings:
    """How to fit: AdamW, `batch` references a step, each with a caption drawn from the method's.

    prior_pictures: pictures of the class that the untouched model makes first, for prior preservation (0:
    none); as many as references are in each step, their loss times prior_weight.
    """

    steps: int
    learning_rate: float
    batch: int = 1
    prior_pictures: int = 0
    prior_weight: float = 1.0
    weight_decay: float = 0.01
    seed: int = 0


@dataclass(frozen=True)
class Examples:
    """Latents (P, C, H, W) of pictures, and captions any of which fits any of them."""

    latents: Tensor
    captions: Sequence[str]

    def draw(self, count: int, random: torch.Generator) -> tuple[Tensor, list[str]]:
        """Return `count` pictures, uniformly, with a caption each."""
        rows = torch.randint(len(self.latents), (count,), generator=random)
        texts = torch.randint(len(self.captions), (count,), generator=random).tolist()
        return self.latents[rows], [self.captions[text] for text in texts]


class FitTask(Task):
    """The backbone's own loss on the references, and on prior pictures; `losses`: each step's."""

    def __init__(
        self,
        pipeline: Any,
        parameters: Mapping[str, nn.Parameter],
        references: Examples,
        prior: Examples | None,
        settings: FitSettings,
    ) -> None:
        self.network, self.trained = pipeline.network, parameters
        self.pipeline, self.settings = pipeline, settings
        self.examples = [references] if prior is None else [references, prior]
        self.random = torch.Generator().manual_seed(settings.seed)
        self.blank = _blank(pipeline, references.latents)
        self.joint_loss, self.backbone = loss_of(pipeline.scheduler), pipeline.backbone
        self.losses: list[float] = []

    def parameters(self) -> dict[str, Tensor]:
        return dict(self.trained)

    def parts(self, step: int) -> list[Part]:
        return [self._loss]

    def _loss(self, network: nn.Module) -> Tensor:
        settings, random = self.settings, self.random
        drawn = [part.draw(settings.batch, random) for part in self.examples]
        latents = torch.cat([pictures for pictures, _ in drawn])
        captions = [text for _, texts in drawn for text in texts]
        batch = sets_of_one(self.pipeline, latents, captions, self.blank)
        errors = self.joint_loss.errors(self.backbone, batch, self.joint_loss.draw(batch, random))
        value = prior_preservation(errors, settings.batch, settings.prior_weight)
        self.losses.append(float(value.detach()))
        return value


def fit(
    pipeline: Any,
    parameters: Mapping[str, nn.Parameter],
    references: Examples,
    prior: Examples | None,
    settings: FitSettings,
) -> list[float]:
    """Change `parameters`, and nothing else, to lower the loss on the references; returns each step's loss.

    pipeline: one that nobody else uses (`parameters.private_copy`); its other parameters are frozen.
    Raises JeDiError for a gradient that is not finite.
    """
    how = Settings(
        name="fit",
        schedule=Schedule(settings.learning_rate),
        steps=settings.steps,
        weight_decay=settings.weight_decay,
        fused=False,
        patience=1,
        rate_key=f"the learning rate ({settings.learning_rate})",
        progress_bar=False,
    )
    for module in networks(pipeline):
        module.requires_grad_(False)
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    with torch.enable_grad():
        task = FitTask(pipeline, parameters, references, prior, settings)
        if settings.steps:
            Trainer(task, how, Processes(references.latents.device)).train()
    return task.losses


def prior_preservation(errors: Tensor, references: int, weight: float) -> Tensor:
    """DreamBooth's eq. 2: mean error of the first `references` pictures, plus `weight` times the rest's.

    errors (P, C, H, W); without a rest the first term alone.
    """
    own = errors[:references].mean()
    return own + weight * errors[references:].mean() if len(errors) > references else own


def loss_of(scheduler: Any) -> JointLoss:
    """Return the backbone's own loss: noise, v or clean latents, as its scheduler says."""
    capped = scheduler.config.prediction_type == "sample"
    return JointLoss.from_scheduler(scheduler, min_snr=SAMPLE_MIN_SNR if capped else None)


@torch.no_grad()
def _blank(pipeline: Any, latents: Tensor) -> Tensor | None:
    factor = pipeline.vae_scale_factor
    blank: Tensor | None = pipeline.blank_latents(latents.shape[2] * factor, latents.shape[3] * factor)
    return blank


def sets_of_one(
    pipeline: Any, latents: Tensor, captions: Sequence[str], blank: Tensor | None = None
) -> SetBatch:
    """Return pictures as targets without references: what a single-image model is, and joint ones are too.

    blank: `JeDiPipeline.blank_latents` of their size.
    """
    factor = pipeline.vae_scale_factor
    height, width = latents.shape[2] * factor, latents.shape[3] * factor
    sizes = pipeline.backbone.size_conditions(len(latents), height, width, latents.device)
    return SetBatch(
        latents=latents,
        mask=torch.ones(len(latents), 1, 1, 1, device=latents.device),
        conditions=pipeline.encode_captions(captions) | sizes,
        set_sizes=(1,) * len(latents),
        blank=None if blank is None else blank.expand_as(latents),
    )


def draw_prior(pipeline: Any, caption: str, settings: FitSettings, sampling: Mapping[str, Any]) -> Examples:
    """Return pictures of the class from the untouched model and the caption alone, one by one; as latents."""
    random = spawn_generators(settings.seed, settings.prior_pictures)
    made = [
        pipeline(prompt=caption, generator=each, **{**sampling, "output_type": "latent"}).images
        for each in random
    ]
    return Examples(torch.cat(made), (caption,))


def networks(pipeline: Any) -> list[nn.Module]:
    """Return the networks that fitting may change."""
    encoders = (pipeline.text_encoder, pipeline.text_encoder_2, pipeline.text_encoder_3)
    parts = (pipeline.network, *encoders)
    return [part for part in parts if part is not None]
