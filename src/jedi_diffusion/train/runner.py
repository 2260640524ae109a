"""A whole training run: builds the models of a recipe, trains its stages in order, writes a diffusers
folder.
"""

import copy
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from jedi_diffusion.backbones import family_of
from jedi_diffusion.backbones.unet import fresh_network
from jedi_diffusion.data.source import SetSource
from jedi_diffusion.errors import JeDiError, ModelError, RecipeError, UsageError
from jedi_diffusion.files import replaced_folder
from jedi_diffusion.joint.loss import JointLoss
from jedi_diffusion.networks.autoencoder import PatchAutoencoder
from jedi_diffusion.networks.text import make_text_encoder, make_word_tokenizer
from jedi_diffusion.pipeline import JeDiPipeline
from jedi_diffusion.sets import ImageSet
from jedi_diffusion.train.config import AutoencoderStage, JointStage, Recipe, Stage, main_coupling
from jedi_diffusion.train.pool import LatentPool, rendered_chunks, to_unit
from jedi_diffusion.train.samples import reconstruction_sheet, sample_sheet
from jedi_diffusion.train.stage import stage_trainer
from jedi_diffusion.train.tasks import AutoencoderTask, JointTask, StageLoss
from jedi_diffusion.trainer.state import write_tensors
from jedi_diffusion.weights import load_strict

FINISHED = "finished.safetensors"
TOKENS = "embeddings.token_embedding.weight"
SHARD = "15MB"  # small files travel and resume better

Part = TypeVar("Part")


class Models:
    """The parts of a model as a recipe describes them, with fresh weights drawn from its seed, or those of
    `init`, the folder of a trained model of the same architectures and words (else ModelError).
    """

    def __init__(self, recipe: Recipe, words: Sequence[str], device: str, init: Path | None = None) -> None:
        section = recipe.model
        torch.manual_seed(recipe.seed)
        self.autoencoder = _built("autoencoder", PatchAutoencoder, section.autoencoder)
        channels = self.autoencoder.config["latent_channels"]
        self.tokenizer: CLIPTokenizer = make_word_tokenizer(words, section.text_length)
        trained = None if init is None else JeDiPipeline.from_pretrained(init, dtype=torch.float32)
        if trained is not None:
            tokenizer = cast(CLIPTokenizer, trained.tokenizer)
            missing = _words(tokenizer) - _words(self.tokenizer)
            if missing:
                few = ", ".join(sorted(missing)[:5])
                raise ModelError(f"{init} was trained on words that the recipe's source lacks: {few}.")
            if _words(tokenizer) == _words(self.tokenizer):
                self.tokenizer = tokenizer  # its numbers of the words, which may be another version's
        self.text_encoder: CLIPTextModel = make_text_encoder(
            self.tokenizer, section.text_width, section.text_layers, section.text_heads
        )
        self.unet = _built(
            "unet",
            partial(fresh_network, section.distance_slope),
            section.unet,
            in_channels=channels,
            out_channels=channels,
            cross_attention_dim=section.text_width,
        )
        if trained is not None:
            self._load(trained)
        else:  # every channel is predicted as zero at first: none starts with a grain
            for parameter in self.unet.conv_out.parameters():
                nn.init.zeros_(parameter)
        modules: tuple[nn.Module, ...] = (self.autoencoder, self.text_encoder, self.unet)
        for module in modules:
            module.to(device)
        self.scheduler = _built("scheduler", DDIMScheduler, section.scheduler)
        joint = [stage for stage in recipe.stages if isinstance(stage, JointStage)]
        self.coupling = main_coupling(joint[-1].cached if joint else 0.0)
        self.temperature, self.masking = section.temperature, section.masking

    def _load(self, trained: JeDiPipeline) -> None:
        """Take the weights of a trained model of the same architectures. Raises ModelError."""
        load_strict(self.autoencoder, trained.vae.state_dict())
        text = trained.text_encoder.state_dict()
        if trained.tokenizer is not self.tokenizer:
            text[TOKENS] = grown_embedding(
                text[TOKENS], cast(CLIPTokenizer, trained.tokenizer), self.tokenizer
            )
        load_strict(self.text_encoder, text)
        load_strict(self.unet, trained.network.state_dict())

    def describe(self) -> str:
        """Return the parts' numbers of parameters, in words."""
        parts = {"autoencoder": self.autoencoder, "text encoder": self.text_encoder, "UNet": self.unet}
        counts = {name: sum(value.numel() for value in part.parameters()) for name, part in parts.items()}
        return "Parameters: " + ", ".join(f"{name} {count / 1e6:.1f}M" for name, count in counts.items())

    def pipeline(self, half: bool = False) -> JeDiPipeline:
        """Return the parts as a pipeline, which shares them; with `half` copies in float16."""
        parts: tuple[nn.Module, ...] = (self.autoencoder, self.text_encoder, self.unet)
        if half:
            parts = tuple(copy.deepcopy(part).half() for part in parts)
        vae, text_encoder, unet = parts
        return JeDiPipeline(
            vae=vae,  # type: ignore[arg-type]
            text_encoder=text_encoder,  # type: ignore[arg-type]
            tokenizer=self.tokenizer,
            unet=unet,  # type: ignore[arg-type]
            scheduler=self.scheduler,
            coupling=self.coupling,
            temperature=self.temperature,
            masking=self.masking,
        )


def _words(tokenizer: CLIPTokenizer) -> set[str]:
    return set(tokenizer.init_kwargs.get("whole_words") or ())


def grown_embedding(rows: Tensor, known: CLIPTokenizer, wider: CLIPTokenizer) -> Tensor:
    """Return the token embedding (V, D) of `wider`, given `known`'s: tokens of both keep their rows, and new
    ones start at the mean of the known words' rows.
    """
    numbers = known.get_vocab()
    words = [numbers[f"{word}</w>"] for word in _words(known)]
    grown = rows[words].mean(0).repeat(len(wider), 1)
    for token, number in wider.get_vocab().items():
        if token in numbers:
            grown[number] = rows[numbers[token]]
    return grown


def _built(part: str, make: Callable[..., Part], settings: dict[str, Any], **follow: Any) -> Part:
    """Return a part of the model from the recipe's settings and those that follow from other parts."""
    for key in follow:
        if key in settings:
            raise RecipeError(f"model.{part}.{key} follows from the rest of the recipe: take it out.")
    try:
        return make(**settings, **follow)
    except JeDiError:
        raise
    except Exception as error:  # wrong settings make libraries raise all kinds
        told = " ".join(str(error).split())
        raise RecipeError(f"model.{part} cannot be built: {type(error).__name__}: {told}") from error


class TrainingRun:
    """Trains a recipe into `folder`. Started again with the same folder it goes on where it was.

    `source` gives training sets; `held_out` sets serve the sheets that show progress. `minutes` is a budget
    of wall-clock time, split over the stages by their shares; None runs the recipe's steps.
    """

    def __init__(
        self,
        recipe: Recipe,
        source: SetSource,
        held_out: Sequence[ImageSet],
        folder: Path,
        device: str,
        minutes: float | None = None,
        init: Path | None = None,
    ) -> None:
        self.recipe, self.source, self.held_out = recipe, source, held_out
        self.folder, self.device, self.minutes, self.init = folder, device, minutes, init
        self.models = Models(recipe, source.words, device, init)

    def train(self, only: Sequence[str] = ()) -> Path:
        """Run the stages that are not finished, or of those the ones named in `only`; returns the model's
        folder.

        A stage before those of `only` is loaded if this run has finished it. Raises UsageError for a name
        that no stage has, and for one whose earlier stages are neither finished nor in `init`.
        """
        names = [stage.name for stage in self.recipe.stages]
        for name in only:
            if name not in names:
                raise UsageError(f"The recipe has no stage {name!r}; it has {', '.join(names)}.")
        chosen = [stage for stage in self.recipe.stages if not only or stage.name in only]
        shares = sum(stage.share for stage in chosen)
        first = 0
        for stage in self.recipe.stages[: 1 + self.recipe.stages.index(chosen[-1])]:
            if stage in chosen:
                self._stage(stage, first, shares)
            elif not self.load_finished(stage) and self.init is None:
                raise UsageError(
                    f"Stage {stage.name} comes before {chosen[-1].name} and is not trained: train it first, "
                    "or start from a trained model (--init)."
                )
            first += stage.subjects
        return self.save_model()

    def load_finished(self, stage: Stage) -> bool:
        """Return whether the stage's result is in the run's folder; if so, it is loaded."""
        finished = self.folder / stage.name / FINISHED
        if finished.exists():
            load_strict(self.modules_of(stage), finished)
        return finished.exists()

    def save_model(self, name: str = "model") -> Path:
        """Write the models, as they are now, as a diffusers folder in float16 with its recipe."""
        folder = self.folder / name
        with replaced_folder(folder) as partial:
            pipeline = self.models.pipeline(half=True)
            pipeline.save_pretrained(partial, safe_serialization=True, max_shard_size=SHARD)
            (partial / "recipe.json").write_text(self.recipe.model_dump_json(indent=2) + "\n")
        return folder

    def _stage(self, stage: Stage, first: int, shares: float) -> None:
        """Train a stage, or load its result; its pictures are the source's sets `first` and up, and its part
        of the budget is its share out of `shares`.
        """
        folder = self.folder / stage.name
        folder.mkdir(parents=True, exist_ok=True)
        if self.load_finished(stage):
            return
        task = self._task(stage, first, folder)
        minutes = None if self.minutes is None else self.minutes * stage.share / shares
        trainer = stage_trainer(task, stage, self.recipe, self.folder, self.device, minutes)
        trainer.train(lambda step: self._show(stage, folder, step))
        trainer.load_average()
        if isinstance(task, AutoencoderTask):
            self.models.autoencoder.make_isometric(to_unit(task.pictures[:1024]))
        write_tensors(folder / FINISHED, self.modules_of(stage).state_dict())
        shutil.rmtree(folder / "state")
        (folder / "pool.safetensors").unlink()

    def modules_of(self, stage: Stage) -> nn.ModuleDict:
        """Return what a stage trains."""
        if isinstance(stage, AutoencoderStage):
            return nn.ModuleDict({"autoencoder": self.models.autoencoder})
        return nn.ModuleDict({"unet": self.models.unet, "text_encoder": self.models.text_encoder})

    def _task(self, stage: Stage, first: int, folder: Path) -> StageLoss:
        kept = folder / "pool.safetensors"
        models = self.models
        if isinstance(stage, AutoencoderStage):
            if not kept.exists():
                chunks = rendered_chunks(self.source, first, stage, self.device)
                pictures = torch.cat([sets.pictures.flatten(0, 1) for sets in chunks])
                write_tensors(kept, {"pictures": pictures})
            pictures = load_file(kept, device=self.device)["pictures"]
            if self.init is None:
                models.autoencoder.start_from_principal_components(to_unit(pictures[:2048]))
            return AutoencoderTask(models.autoencoder, pictures, stage)
        if not isinstance(stage, JointStage):
            raise TypeError(stage)
        if not kept.exists():
            pool = LatentPool.build(
                self.source,
                first,
                stage,
                models.autoencoder,
                models.tokenizer,
                self.device,
                self.recipe.precision,
            )
            write_tensors(kept, pool.tensors())
        loss = JointLoss.from_scheduler(
            models.scheduler, reference_weight=stage.reference_weight, min_snr=stage.min_snr
        )
        pool = LatentPool(**load_file(kept, device=self.device))
        return JointTask(family_of(models.unet)(models.unet), models.text_encoder, pool, loss, stage)

    def _show(self, stage: Stage, folder: Path, step: int) -> None:
        """Draw a sheet of the held-out sets at this step; of joint stages also write the model, to
        be used.
        """
        path = folder / f"samples-{step:07d}.png"
        if isinstance(stage, AutoencoderStage):
            reconstruction_sheet(self.models.autoencoder, self.held_out, path, self.device)
        else:
            sample_sheet(self.models.pipeline(), self.held_out, stage.resolution, path)
            self.save_model()
