"""All pieces of a recipe, each made once: trainings, cells, timing, synthesis, and the page over them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from experiments.paper_tables import timing
from experiments.paper_tables.cells import PICTURES, Cells, Scored
from experiments.paper_tables.networks import Network, open_backbone
from experiments.paper_tables.pieces import open_piece, piece_lock, read_json, write_json
from experiments.paper_tables.plan import BACKBONE, DREAMBOOTH, Cell, Plan, Training
from experiments.paper_tables.recipe import PaperRecipe
from experiments.paper_tables.report import Report, strips_of, write_report
from experiments.paper_tables.tables import STAND_INS, gather
from experiments.paper_tables.training import ENCODER, FACTS, Sources, Trainings, digest
from jedi_diffusion import models
from jedi_diffusion.backbones.unet import make_joint
from jedi_diffusion.cli import synthesize, synthesize_report
from jedi_diffusion.evaluation import judging
from jedi_diffusion.evaluation.cases import EvaluationSet
from jedi_diffusion.evaluation.own_subjects import open_own_subjects
from jedi_diffusion.evaluation.scoring import Scorer
from jedi_diffusion.methods.conditioned import Conditioned
from jedi_diffusion.methods.custom_diffusion import CustomDiffusionMethod
from jedi_diffusion.methods.dreambooth import DreamBoothMethod
from jedi_diffusion.methods.joint import Joint
from jedi_diffusion.networks.autoencoder import PatchAutoencoder
from jedi_diffusion.personalizer import Personalizer
from jedi_diffusion.pipeline import JeDiPipeline
from jedi_toybox import world
from jedi_toybox.evaluation_data import write_evaluation_data
from jedi_toybox.source import ToyboxSource, ToyboxViews

SHEET_SETS = 2


@dataclass
class Work:
    """All pieces of a recipe below `out`."""

    recipe: PaperRecipe
    plan: Plan
    out: Path
    device: torch.device
    _opened: tuple[str, Network] | None = field(default=None, repr=False)

    def run(self) -> list[Path]:
        """Trainings, each followed by its cells; timing; synthesis. The page is written after each.

        Several processes may work on one folder: each takes the methods that no other is at, then waits for
        those of the others.
        """
        done: dict[str, Scored] = {}
        left = list(dict.fromkeys(cell.method for cell in self.plan.cells))
        if left:
            self.trainings.train_backbone()
        for wait in (False, True):
            for method in [*left]:
                with piece_lock(self.out, method, wait) as held:
                    if held:
                        self._make(method, done)
                        left.remove(method)
        self._opened = None
        with piece_lock(self.out, "timing"):
            seconds = self._seconds() if "10" in self.recipe.tables else {}
        with piece_lock(self.out, "synthesis"):
            data = self._synthesis() if "8" in self.recipe.tables else None
        return self._write(done, seconds, data)

    def _make(self, method: str, done: dict[str, Scored]) -> None:
        """Train a method, draw and score its cells, and write the page anew."""
        training = self._training(method)
        if training is not None:
            if "clip" in training.design:
                self.trainings.train_encoder()
            self.trainings.train(training)
        for cell in (each for each in self.plan.cells if each.method == method):
            print(f"{len(done) + 1} of {len(self.plan.cells)}: {cell.name}", flush=True)
            done[cell.name] = self.cells.run(cell)
        self._write(done, {}, None)

    @cached_property
    def trainings(self) -> Trainings:
        backbone, compiled = self.recipe.backbone, self.recipe.data.compiled
        settings = (backbone.seed, backbone.supersample)
        shown = [
            world.sample_set(seed, "held_out", size=2, resolution=self.recipe.size)
            for seed in range(SHEET_SETS)
        ]
        sources = Sources(
            ToyboxSource(*settings, compiled=compiled), ToyboxViews(*settings, compiled=compiled), shown
        )
        return Trainings(self.recipe, sources, self.out, str(self.device))

    @cached_property
    def cells(self) -> Cells:
        return Cells(
            self.recipe,
            self.out,
            self._open_set,
            self._open_scorer,
            self._personalizer,
            self._depends_on,
        )

    def _training(self, method: str) -> Training | None:
        """None for a finetuning method."""
        return next((each for each in self.plan.trainings if each.name == method), None)

    def _depends_on(self, method: str) -> Any:
        training = self._training(method)
        if training is not None:
            return digest(self.trainings.record(training))
        fit = getattr(self.recipe.finetuning, method).model_dump(mode="json")
        return {"fit": fit, "backbone": digest(self.recipe.backbone.model_dump(mode="json"))}

    def _open_set(self, references: int, classes: Any) -> EvaluationSet:
        wanted, size = self.recipe.set, self.recipe.size
        numbers = (wanted.subjects, wanted.prompts, size, wanted.inputs, wanted.seed)
        name = "-".join(map(str, (classes, *numbers)))
        with piece_lock(self.out, f"data-{name}"):
            data = write_evaluation_data(
                self.out / "data" / name,
                wanted.subjects,
                wanted.prompts,
                size,
                classes,
                wanted.seed,
                str(self.device),
                wanted.inputs,
            )
        return open_own_subjects(data, references, "picks", wanted.samples, "toybox", wanted.seed)

    def _open_scorer(self, wanted: EvaluationSet, features: Path) -> Scorer:
        device = str(self.device)
        encoders = judging.load_encoders(("toybox",), "", "", device)
        finder = judging.load_finder("found", ("toybox",), device)
        return Scorer(wanted, encoders, features, "pairs", "found", finder)

    def _personalizer(self, cell: Cell) -> Personalizer:
        size = self.recipe.size
        settings = {
            "num_inference_steps": cell.steps,
            "guidance_scale": cell.guidance,
            "guidance_mode": cell.mode,
            "image_guidance_scale": cell.image_guidance,
            "coupling": cell.coupling,
            "null_set": cell.null_set,
            "height": size,
            "width": size,
        }
        training = self._training(cell.method)
        if training is None:
            return self._finetuned(cell, settings)
        network = self._network(training)
        pipe: Any = network.pipeline
        if cell.scheduler != "model":
            pipe = _with_scheduler(pipe, cell.scheduler)
        if training.design in ("joint", "cached"):
            return Joint(pipe, settings)
        return Conditioned(pipe, network.denoiser, settings)

    def _network(self, training: Training) -> Network:
        """Return a trained method; one is in memory at a time."""
        if self._opened is None or self._opened[0] != training.name:
            self._opened = None
            self._opened = training.name, self.trainings.open(training)
        return self._opened[1]

    def _finetuned(self, cell: Cell, settings: dict[str, Any]) -> Personalizer:
        kind = DreamBoothMethod if cell.method == DREAMBOOTH else CustomDiffusionMethod
        fit = getattr(self.recipe.finetuning, cell.method).model_dump()
        method = kind.model_validate({"kind": cell.method, "name": cell.name, **fit})
        pipe = open_backbone(self.trainings.backbone, str(self.device))
        return method.on(pipe, settings, self.cells.folder(cell) / "fits")

    def _seconds(self) -> dict[str, dict[str, list[float]]]:
        """Table 10, each size once: at that of the backbone, and at Stable Diffusion's."""
        settings, found = self.recipe.timing, {}
        device = torch.cuda.get_device_name() if self.device.type == "cuda" else self.device.type
        for large in (False, True)[: 1 + settings.large]:
            name = "the size of Stable Diffusion 1.4, random weights" if large else "the backbone's size"
            section = self.recipe.backbone.model
            record = {
                "unet": timing.STABLE_DIFFUSION if large else section.unet,
                "latents": section.autoencoder,
                "text": [section.text_width, section.text_length],
                "repetitions": settings.repetitions,
                "on": device,
            }
            home = open_piece(self.out / "timing" / ("large" if large else "own"), record)
            if not (home / "seconds.json").exists():
                unet = timing.large_unet(str(self.device)) if large else make_joint(self._own_unet())
                tokens = timing.CLIP_TOKENS if large else section.text_length
                write_json(home / "seconds.json", timing.step_seconds(unet, tokens, settings.repetitions))
            found[f"{name} ({device})"] = read_json(home / "seconds.json")
        return found

    def _own_unet(self) -> Any:
        section = self.recipe.backbone.model
        autoencoder = PatchAutoencoder(**section.autoencoder)
        channels = autoencoder.config["latent_channels"]
        unet = UNet2DConditionModel(
            in_channels=channels,
            out_channels=channels,
            cross_attention_dim=section.text_width,
            **section.unet,
        )
        return unet.to(self.device).eval()

    def _synthesis(self) -> dict[str, Any] | None:
        """Table 8's numbers: a run of the synthesis and its report, where the recipe names one."""
        section = self.recipe.synthesis
        if section is None:
            return None
        home = open_piece(
            self.out / "synthesis",
            section.model_dump(mode="json"),
            lambda found: type(section).model_validate(found).model_dump(mode="json"),
        )
        run = home / "run"
        if not (home / "report.json").exists():
            changes = [word for change in section.set for word in ("--set", change)]
            synthesize.run([section.recipe, "--out", str(run), *changes])
            synthesize_report.run([str(run), "--out", str(home), "--device", self.device.type])
        told = read_json(home / "report.json")["training_data"]
        return {name: told[name] for name in ("sets", "subjects", "categories", "similarity")}

    def _write(self, done: dict[str, Scored], seconds: Any, data: Any) -> list[Path]:
        strategies = self.plan.strategies() if "6" in self.recipe.tables else {}
        sweeps = {
            name: [(cell, done[cell.name]) for cell in cells]
            for name, cells in strategies.items()
            if all(cell.name in done for cell in cells)
        }
        names = [BACKBONE, ENCODER, *(each.name for each in self.plan.trainings)]
        trained = [name for name in names if (self.out / "trainings" / name / FACTS).exists()]
        shown = self._usual_cells(done)
        strips = []
        if shown:
            folders = {
                STAND_INS.get(name, name): self.cells.folder(cell) / PICTURES for name, cell in shown.items()
            }
            strips = strips_of(self.cells.wanted(next(iter(shown.values()))), folders)
        report = Report(
            recipe=self.recipe,
            device=self.device.type,
            tables=gather(self.plan, done),
            trainings={name: self.trainings.facts(name) for name in trained},
            sweeps=sweeps,
            seconds=seconds,
            data=data,
            known=self.cells.known("known") if done else [],
            strips=strips,
            left=len(self.plan.cells) - len(done),
        )
        return write_report(report, self.out)

    def _usual_cells(self, done: dict[str, Scored]) -> dict[str, Cell]:
        """Return the methods of the paper's tables that were drawn from one reference of known classes, by
        row.
        """
        found: dict[str, Cell] = {}
        for key, rows in self.plan.tables.items():
            if key not in ("2", "4", "7"):
                continue
            for name, (cell, *_) in rows.items():
                usual = cell.references == 1 and cell.name in done and cell not in found.values()
                if usual:
                    found[name] = cell
        return found


def _with_scheduler(pipe: Any, name: str) -> Any:
    """Return the same networks under another scheduler; the pipeline given keeps its own."""
    other = JeDiPipeline(**pipe.components)
    other.set_progress_bar_config(disable=True)
    models.set_scheduler(other, name)
    return other
