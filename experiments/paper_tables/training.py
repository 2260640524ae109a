"""What must be trained: the backbone, the stand-in for CLIP, and each method from the backbone with equal
data, steps and batch.

Layout: OUT/trainings/backbone, OUT/trainings/encoder, OUT/trainings/joint-8000 ..., OUT/pools. Each is made
once; a stopped training goes on from its last checkpoint.
Letters: I pictures of a batch; K text tokens.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from experiments.paper_tables.networks import Network, new_encoder, open_backbone, open_network
from experiments.paper_tables.pieces import by_value, open_piece, piece_lock, read_json, write_json
from experiments.paper_tables.plan import BACKBONE, Training
from experiments.paper_tables.recipe import DataSection, EncoderSection, LearnedSection, PaperRecipe
from jedi_diffusion.data.source import SetSource
from jedi_diffusion.files import make_folder
from jedi_diffusion.joint.loss import JointLoss
from jedi_diffusion.networks.autoencoder import PatchAutoencoder
from jedi_diffusion.sets import ImageSet
from jedi_diffusion.train.config import JointStage, Recipe, Stage
from jedi_diffusion.train.pool import LatentPool
from jedi_diffusion.train.runner import FINISHED, TrainingRun
from jedi_diffusion.train.stage import stage_trainer
from jedi_diffusion.train.tasks import JointTask, StageLoss
from jedi_diffusion.trainer.state import write_tensors
from jedi_diffusion.weights import load_strict

FACTS = "facts.json"
ENCODER = "encoder"


@dataclass(frozen=True)
class Sources:
    """Same-subject sets, views of subjects in one scene, and sets that show a training's progress."""

    sets: SetSource
    views: SetSource
    held_out: Sequence[ImageSet]


class MixedTask:
    """The joint loss on one of several pools a step, each with equal chances (section 4)."""

    def __init__(self, tasks: Sequence[JointTask]) -> None:
        self.tasks, self.modules, self.step_shares = tasks, tasks[0].modules, tasks[0].step_shares

    def loss(self, generator: torch.Generator) -> Tensor:
        number = int(torch.randint(len(self.tasks), (), generator=generator))
        return self.tasks[number].loss(generator)


class EncoderTask:
    """Latents and captions brought together; the text encoder stays as it is."""

    def __init__(self, encoder: Any, text_encoder: Any, pool: LatentPool, stage: Stage) -> None:
        self.modules = nn.ModuleDict({"encoder": encoder})
        self.step_shares: dict[str, Tensor] = {}
        self.encoder, self.text_encoder, self.pool, self.stage = encoder, text_encoder, pool, stage

    def loss(self, generator: torch.Generator) -> Tensor:
        count, pictures = self.pool.latents.shape[:2]
        subjects = torch.randperm(count, generator=generator)[: self.stage.batch]
        which = torch.randint(pictures, (len(subjects),), generator=generator)
        subjects, which = (each.to(self.pool.latents.device) for each in (subjects, which))
        with torch.no_grad():
            told = self.text_encoder(self.pool.captions[subjects, which].long()).pooler_output
        loss: Tensor = self.encoder.loss(self.pool.latents[subjects, which].float(), told)
        return loss


@dataclass
class Trainings:
    """All trainings of a recipe below `out`. Raises RecipeError for a folder of another recipe."""

    recipe: PaperRecipe
    sources: Sources
    out: Path
    device: str

    @property
    def backbone(self) -> Path:
        """The backbone's model folder."""
        return self._home(BACKBONE) / "model"

    @property
    def encoder(self) -> Path:
        """The weights of the stand-in for CLIP."""
        return self._home(ENCODER) / "weights.safetensors"

    def train_backbone(self) -> Path:
        """Train what is not trained yet and return the model's folder."""
        record = {"recipe": self.recipe.backbone.model_dump(mode="json")}
        home = open_piece(self._home(BACKBONE), record, by_value(recipe=Recipe))
        with piece_lock(self.out, BACKBONE):
            if not (home / FACTS).exists():
                run = TrainingRun(
                    self.recipe.backbone, self.sources.sets, self.sources.held_out, home, self.device
                )
                run.train()
                parameters = sum(each.numel() for each in run.models.unet.parameters())
                spent = sum(_logged_seconds(home / stage.name) for stage in self.recipe.backbone.stages)
                write_json(home / FACTS, {"parameters": parameters, "seconds": spent})
        return self.backbone

    def train_encoder(self) -> Path:
        """Train the stand-in for CLIP's image encoder on the same-subject sets."""
        stage = self.recipe.encoder
        record = {"stage": stage.model_dump(mode="json"), **self._shared()}
        home = open_piece(self._home(ENCODER), record, by_value(stage=EncoderSection, data=DataSection))
        with piece_lock(self.out, ENCODER):
            if not (home / FACTS).exists():
                pipe = open_backbone(self.backbone, self.device)
                encoder = new_encoder(self.recipe, pipe)
                task = EncoderTask(encoder, pipe.text_encoder, self.pool("sets"), stage)
                self._train(task, stage, home, self.encoder)
        return self.encoder

    def train(self, training: Training) -> None:
        """Train a method from the backbone, unless that is done."""
        read = by_value(stage=JointStage, data=DataSection, encoder=EncoderSection, learned=LearnedSection)
        home = open_piece(self._home(training.name), self.record(training), read)
        if (home / FACTS).exists():
            return
        cached = 0.0 if training.design in ("joint", "joint_clip") else 1.0
        stage = self.recipe.training.model_copy(update={"cached": cached})
        network = self._untrained(training)
        loss = JointLoss.from_scheduler(
            network.pipeline.scheduler, reference_weight=stage.reference_weight, min_snr=stage.min_snr
        )
        pools = [self.pool("views")]
        if training.amount:
            pools.append(_first(self.pool("sets"), training.amount))
        encoder = cast(CLIPTextModel, network.pipeline.text_encoder)
        tasks = [JointTask(network.denoiser, encoder, pool, loss, stage, network.trained) for pool in pools]
        self._train(MixedTask(tasks), stage, home, home / FINISHED)

    def open(self, training: Training) -> Network:
        """Return a trained method. Raises ModelError."""
        network = self._untrained(training)
        load_strict(network.trained, self._home(training.name) / FINISHED)
        network.trained.eval()
        return network

    def facts(self, name: str) -> dict[str, Any]:
        """Parameters and seconds of a finished training."""
        return read_json(self._home(name) / FACTS)

    def record(self, training: Training) -> dict[str, Any]:
        """Return what decides a training's weights, as plain JSON values."""
        recipe = self.recipe
        return {
            "training": asdict(training),
            "stage": recipe.training.model_dump(mode="json"),
            "encoder": recipe.encoder.model_dump(mode="json") if "clip" in training.design else None,
            "learned": recipe.learned.model_dump(mode="json") if training.design == "learned" else None,
            **self._shared(),
        }

    def pool(self, kind: str) -> LatentPool:
        """Return the pool "sets" or "views" in memory; rendered and encoded if it is not there yet."""
        backbone, stage = self.recipe.backbone, self.recipe.training
        source = self.sources.sets if kind == "sets" else self.sources.views
        if kind == "views":
            stage = stage.model_copy(update={"subjects": self.recipe.data.views, "name": "views"})
        path = make_folder(self.out / "pools") / f"{kind}-{self._pool_digest(kind)}.safetensors"
        with piece_lock(self.out, path.stem):
            if not path.exists():
                pipe = open_backbone(self.backbone, self.device)
                first = sum(each.subjects for each in backbone.stages)  # none that the backbone has seen
                pool = LatentPool.build(
                    source,
                    first,
                    stage,
                    cast(PatchAutoencoder, pipe.vae),
                    cast(CLIPTokenizer, pipe.tokenizer),
                    self.device,
                )
                write_tensors(path, pool.tensors())
        return LatentPool(**load_file(path, device=self.device))

    def _pool_digest(self, kind: str) -> str:
        stage, data = self.recipe.training, self.recipe.data
        count = stage.subjects if kind == "sets" else data.views
        told = [stage.resolution, stage.pictures, count, data.compiled, self._shared()]
        return digest(told)

    def _shared(self) -> dict[str, Any]:
        """Return what every training depends on."""
        return {
            "backbone": digest(self.recipe.backbone.model_dump(mode="json")),
            "data": self.recipe.data.model_dump(mode="json"),
        }

    def _untrained(self, training: Training) -> Network:
        encoder = self.encoder if "clip" in training.design else None
        return open_network(training.design, self.recipe, self.backbone, encoder, self.device)

    def _train(self, task: StageLoss, stage: Stage, home: Path, result: Path) -> None:
        """Go on with the loop of `train`; the averaged weights become `result`."""
        trainer = stage_trainer(task, stage, self.recipe.backbone, home, self.device)
        trainer.train()
        trainer.load_average()
        write_tensors(result, task.modules.state_dict())
        parameters = sum(each.numel() for each in trainer.parameters.values())
        write_json(home / FACTS, {"parameters": parameters, "seconds": trainer.spent})
        shutil.rmtree(home / stage.name / "state")

    def _home(self, name: str) -> Path:
        return self.out / "trainings" / name


def _logged_seconds(stage: Path) -> float:
    """Return what a stage took, over all its starts, up to its last line in the log."""
    lines = (stage / "log.jsonl").read_text().splitlines()
    return float(json.loads(lines[-1])["seconds"]) if lines else 0.0


def _first(pool: LatentPool, count: int) -> LatentPool:
    """Return the pool's first subjects."""
    names = ("latents", "coverage", "captions", "names")
    return replace(pool, **{name: getattr(pool, name)[:count] for name in names})


def digest(told: Any) -> str:
    """Return a short name of plain JSON values."""
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]
