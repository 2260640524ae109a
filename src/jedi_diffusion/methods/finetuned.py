"""Finetuning methods as personalizers: fit to the references, store, sample, each on a copy of its own."""

from __future__ import annotations

import hashlib
import json
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

import torch
from pydantic import Field
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from jedi_diffusion import models
from jedi_diffusion.errors import ModelError
from jedi_diffusion.evaluation.cases import EvaluationSet
from jedi_diffusion.files import make_folder, write_file
from jedi_diffusion.inputs import picture_size, to_pixels
from jedi_diffusion.methods.fitting import Examples, FitSettings, draw_prior, fit
from jedi_diffusion.methods.joint import Joint
from jedi_diffusion.methods.naming import noun_of
from jedi_diffusion.methods.oracle import oracle_key
from jedi_diffusion.methods.parameters import compose, private_copy
from jedi_diffusion.methods.settings import ModelSettings
from jedi_diffusion.weights import check_weights_file

if TYPE_CHECKING:
    from PIL import Image

State = dict[str, Tensor]
MEGABYTE = 10**6


class Tuning(Protocol):
    """What a finetuning method changes in a backbone, and how it names the subject."""

    def add(self, pipeline: Any, noun: str, random: torch.Generator) -> dict[str, nn.Parameter]:
        """Give a pipeline that nobody else uses the method's parameters; return them by name."""
        ...

    def captions(self, noun: str) -> Sequence[str]:
        """Return what the references are called while fitting; one is drawn each time."""
        ...

    def prompt(self, text: str, noun: str) -> str:
        """Return a prompt with the subject's name in the place of its class."""
        ...


@dataclass(frozen=True)
class FitReport:
    """What a fit took: seconds in all, and for prior pictures; bytes that it stores; each step's loss."""

    seconds: float
    prior_seconds: float
    stored_bytes: int
    losses: list[float]


@dataclass
class Finetuned:
    """A finetuning method on a backbone: any JeDiPipeline, used with sets of one.

    On a model made by `from_single_image_model` that is the single-image model itself. The first caption of
    the references names the class ("a dog"). settings: arguments of the pipeline's call. store: a folder;
    what was fitted is kept there as safetensors and reused, one file for each choice of references, captions,
    fit and `record` (plain JSON values that tell the method and the backbone). reports: what each fit took,
    by file name. The pipeline itself is never changed, so others may use it meanwhile. Raises ModelError for
    a backbone that is not float32 or a stored file that does not fit.
    """

    pipeline: Any
    tuning: Tuning
    fit: FitSettings
    settings: dict[str, Any] = field(default_factory=dict)
    store: Path | None = None
    record: Mapping[str, Any] = field(default_factory=dict)
    reports: dict[str, FitReport] = field(default_factory=dict)
    _last: tuple[str, State] | None = field(default=None, repr=False)
    _prior: tuple[str, Examples] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.pipeline.network.dtype != torch.float32:
            raise ModelError("Finetuning methods need a backbone in float32; small steps vanish otherwise.")

    def __call__(
        self,
        references: Sequence[Image.Image],
        reference_prompts: Sequence[str],
        prompts: Sequence[str],
        seeds: Sequence[int],
    ) -> list[Image.Image]:
        noun = noun_of(reference_prompts[0])
        state = self.fitted(references, reference_prompts)
        pipeline, parameters = self._private(noun)
        _fill(parameters, state, self._key(references, reference_prompts))
        compose(pipeline.network)
        named = [self.tuning.prompt(text, noun) for text in prompts]
        return Joint(pipeline, self.settings)([], [], named, seeds)

    def fitted(self, references: Sequence[Image.Image], reference_prompts: Sequence[str]) -> State:
        """Return what the method learns of the references: from memory, from the store, or by fitting now."""
        key = self._key(references, reference_prompts)
        if self._last is None or self._last[0] != key:
            file = None if self.store is None else self.store / f"{key}.safetensors"
            if file is not None and file.exists():
                state, self.reports[key] = _read(file)
            else:
                state, self.reports[key] = self._fit(references, reference_prompts[0])
                if file is not None:
                    _write(file, state, self.reports[key])
            self._last = (key, state)
        return self._last[1]

    def _fit(self, references: Sequence[Image.Image], caption: str) -> tuple[State, FitReport]:
        start, noun = time.perf_counter(), noun_of(caption)
        prior = self._draw_prior(caption)
        prior_seconds = time.perf_counter() - start
        height, width = self.settings.get("height"), self.settings.get("width")
        own = self.pipeline.backbone.latent_size
        size = picture_size(height, width, own, self.pipeline.vae_scale_factor)
        with torch.no_grad():
            latents = self.pipeline.encode_pictures(to_pixels(references, *size))
        pipeline, parameters = self._private(noun)
        shown = Examples(latents, self.tuning.captions(noun))
        losses = fit(pipeline, parameters, shown, prior, self.fit)
        state = {name: each.detach().cpu().clone() for name, each in parameters.items()}
        stored = sum(each.numel() * each.element_size() for each in state.values())
        return state, FitReport(time.perf_counter() - start, prior_seconds, stored, losses)

    def _draw_prior(self, caption: str) -> Examples | None:
        """Return the class's pictures; those of the class before are forgotten."""
        if not self.fit.prior_pictures or not self.fit.steps:
            return None
        if self._prior is None or self._prior[0] != caption:
            self._prior = caption, draw_prior(self.pipeline, caption, self.fit, self.settings)
        return self._prior[1]

    def _private(self, noun: str) -> tuple[Any, dict[str, nn.Parameter]]:
        """Return a pipeline of this call's own, and the method's parameters in it."""
        pipeline = private_copy(self.pipeline)
        random = torch.Generator().manual_seed(self.fit.seed)
        return pipeline, self.tuning.add(pipeline, noun, random)

    def _key(self, references: Sequence[Image.Image], reference_prompts: Sequence[str]) -> str:
        told = {
            "tuning": repr(self.tuning),
            "fit": asdict(self.fit),
            "sampling": self.settings,
            "record": dict(self.record),
        }
        text = json.dumps([told, list(reference_prompts)], sort_keys=True)
        pixels, _ = oracle_key(references, "")
        return hashlib.sha256(pixels + text.encode()).hexdigest()[:24]


def _fill(parameters: Mapping[str, nn.Parameter], state: Mapping[str, Tensor], where: str) -> None:
    """Raise ModelError unless the state has exactly these parameters, of these shapes."""
    wanted, given = ({name: each.shape for name, each in some.items()} for some in (parameters, state))
    if wanted != given:
        raise ModelError(f"{where} does not fit this method and backbone; remove it, and it is fitted anew.")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(state[name])


def _write(file: Path, state: State, report: FitReport) -> None:
    make_folder(file.parent)
    write_file(file, save(state, {"report": json.dumps(asdict(report))}))


def _read(file: Path) -> tuple[State, FitReport]:
    report = _read_report(file)
    return load_file(str(file)), report


def _read_report(file: Path) -> FitReport:
    check_weights_file(file)
    with safe_open(str(file), framework="pt") as opened:
        told = (opened.metadata() or {}).get("report")
    try:
        return FitReport(**json.loads(told or ""))
    except (ValueError, TypeError) as error:
        raise ModelError(f"{file} was not written by a fit; remove it, and it is fitted anew.") from error


class FinetunedMethod(ModelSettings):
    """What finetuning methods share: how each subject is fitted. What is not given is the method's own."""

    fit_steps: Annotated[int | None, Field(ge=0, description="0: nothing is fitted")] = None
    learning_rate: Annotated[float | None, Field(gt=0, le=10)] = None
    fit_batch: Annotated[int | None, Field(ge=1, le=1024, description="references a step")] = None
    prior_pictures: Annotated[int | None, Field(ge=0, le=10_000, description="0: no preservation")] = None
    prior_weight: Annotated[float | None, Field(ge=0, le=1000)] = None
    fit_seed: int = Field(0, ge=0, lt=2**31)
    dtype: Literal["auto", "float32"] = "auto"

    @abstractmethod
    def tuning(self) -> tuple[Tuning, FitSettings]:
        """Return what the method changes, and how it is fitted by default. Raise ModelError without peft."""

    def check(self) -> None:
        super().check()
        self.tuning()

    def build(self, wanted: EvaluationSet, device: torch.device, store: Path) -> Finetuned:
        pipe, settings = self.model_copy(update={"dtype": "float32"}).open(device)
        return self.on(pipe, settings, store)

    def on(self, pipeline: Any, settings: dict[str, Any], store: Path) -> Finetuned:
        """Return the method on a loaded backbone; what it fits is kept in `store`, for these very weights."""
        tuning, own = self.tuning()
        given = {
            "steps": self.fit_steps,
            "learning_rate": self.learning_rate,
            "batch": self.fit_batch,
            "prior_pictures": self.prior_pictures,
            "prior_weight": self.prior_weight,
            "seed": self.fit_seed,
        }
        changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        record = {"weights": models.fingerprint(pipeline)}
        return Finetuned(pipeline, tuning, replace(own, **changes), settings, store, record)

    def remark(self, store: Path) -> str:
        """Return how many fits are stored, their mean time and size. Raise ModelError for other files."""
        reports = [_read_report(file) for file in sorted(store.glob("*.safetensors"))]
        if not reports:
            return f"{self.name}: no fits"
        seconds = sum(each.seconds for each in reports) / len(reports)
        stored = sum(each.stored_bytes for each in reports) / len(reports) / MEGABYTE
        return f"{self.name}: fitted {len(reports)} times, {seconds:.1f} s and {stored:.3f} MB on average"
