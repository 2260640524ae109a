"""Adapters of a joint model: their file says how they were trained, and calls follow it."""

from __future__ import annotations

import inspect
import logging
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import Self

from diffusers.loaders.lora_pipeline import StableDiffusionLoraLoaderMixin
from diffusers.models.modeling_utils import ModelMixin
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor

from jedi_diffusion.backbones.base import Backbone
from jedi_diffusion.errors import ModelError, UsageError
from jedi_diffusion.joint.process import Scheduler
from jedi_diffusion.options import Coupling
from jedi_diffusion.parts import setting
from jedi_diffusion.weights import PICKLED, PathOrId, load_errors

logger = logging.getLogger(__name__)

PREFIX = "jedi."
"""Of our keys in diffusers' adapter metadata, which go by part of the model: "unet.r", "jedi.coupling"."""

RECORD = "jedi_record"
"""The attribute of peft's configuration of adapters that holds their `AdapterRecord`."""


@dataclass(frozen=True)
class AdapterRecord:
    """How adapters were trained: the coupling of most steps, the base's name, and what of the base is in no
    weight: `distance_slope` (`install_coupling`) and its scheduler's `prediction_type` (`prediction_of`).
    """

    coupling: Coupling
    base: str
    distance_slope: float
    prediction_type: str

    def metadata(self) -> dict[str, str | float]:
        return {PREFIX + name: value for name, value in asdict(self).items()}

    @classmethod
    def of_metadata(cls, metadata: Mapping[str, object] | None) -> Self | None:
        """Return the record among a file's metadata; None in files that others wrote. Raises ModelError."""
        ours = {
            name.removeprefix(PREFIX): value
            for name, value in (metadata or {}).items()
            if name.startswith(PREFIX)
        }
        if not ours:
            return None
        try:
            record = cls(**ours)  # type: ignore[arg-type]  # read from a file, so it may not fit
        except TypeError as error:
            raise ModelError(f"The adapters' record of their training does not fit: {error}.") from error
        if record.coupling not in ("joint", "cached"):
            raise ModelError(f"The adapters were trained with an unknown coupling, {record.coupling!r}.")
        return record


def prediction_of(scheduler: Scheduler) -> str:
    """Return what a network predicts, in diffusers' words; schedulers of flows do not say it."""
    return setting(scheduler.config, "prediction_type", str, "flow_prediction")


class RecordedAdapters(DiffusionPipeline, StableDiffusionLoraLoaderMixin):
    """diffusers' adapters on a joint pipeline, whose calls take the coupling that they know."""

    _lora_loadable_modules = ["unet", "transformer", "text_encoder"]  # noqa: RUF012 - diffusers reads it

    scheduler: Scheduler

    @property
    @abstractmethod
    def network_name(self) -> str: ...

    @property
    @abstractmethod
    def network(self) -> ModelMixin: ...

    @property
    @abstractmethod
    def backbone(self) -> Backbone: ...

    def load_lora_weights(  # type: ignore[override]  # as diffusers' own
        self,
        pretrained_model_name_or_path_or_dict: PathOrId | dict[str, Tensor],
        adapter_name: str | None = None,
        hotswap: bool = False,
        **kwargs: object,
    ) -> None:
        """Put adapters from a folder, a file, the Hub or a state dict on the network; safetensors only.

        Calls that name no coupling then take the one that the adapters were trained with, if their file says
        so. kwargs: diffusers'. Raises ModelError for adapters of another kind of base, UsageError for a
        pickle.
        """
        source = pretrained_model_name_or_path_or_dict
        names = [kwargs.get("weight_name"), source]
        if any(PurePath(name).suffix in PICKLED for name in names if isinstance(name, str | PurePath)):
            raise UsageError("Adapters are read from safetensors only; a pickle can run any code.")
        kwargs["use_safetensors"] = True
        before = set(self._loaded)
        with load_errors("from a state dict" if isinstance(source, dict) else source):
            loader = self.backbone.lora_loader
            found: Sequence[Mapping[str, object]] = loader.lora_state_dict(  # type: ignore[call-arg]
                source, return_lora_metadata=True, **kwargs
            )
            record = AdapterRecord.of_metadata(found[-1])
            if record is not None:
                self._check_base(record)
            if loader is StableDiffusionLoraLoaderMixin:
                super().load_lora_weights(source, adapter_name, hotswap, **kwargs)
            else:
                into = loader.load_lora_into_transformer  # type: ignore[attr-defined]  # families' own
                takes_alphas = "network_alphas" in inspect.signature(into).parameters  # FLUX.1's does
                into(
                    found[0],
                    transformer=self.network,
                    adapter_name=adapter_name,
                    metadata=found[-1],
                    _pipeline=self,
                    hotswap=hotswap,
                    **({"network_alphas": None} if takes_alphas else {}),
                )
        for name, adapter in self._loaded.items():
            if name == adapter_name or name not in before:
                setattr(adapter, RECORD, record)

    def set_adapters(self, *args: object, **kwargs: object) -> None:
        """diffusers', with a warning where adapters of different couplings are put together."""
        super().set_adapters(*args, **kwargs)  # type: ignore[arg-type]
        if len({each.coupling for each in self._active_records()}) > 1:
            logger.warning(
                "The active adapters were trained with different couplings; calls that name none take %r.",
                self.own_coupling,
            )

    def fuse_lora(self, *args: object, **kwargs: object) -> None:
        """diffusers', and the pipeline's own coupling becomes that of the adapters."""
        self._unfused_coupling = self.config["coupling"]
        super().fuse_lora(*args, **self._with_components(args, kwargs))  # type: ignore[arg-type]
        self.register_to_config(coupling=self.own_coupling)  # type: ignore[no-untyped-call]

    def unfuse_lora(self, *args: object, **kwargs: object) -> None:
        """diffusers', and the pipeline's own coupling is what it was."""
        super().unfuse_lora(*args, **self._with_components(args, kwargs))  # type: ignore[arg-type]
        self.register_to_config(coupling=self._unfused_coupling)  # type: ignore[no-untyped-call]

    def _with_components(self, args: Sequence[object], kwargs: dict[str, object]) -> dict[str, object]:
        """Name the parts that adapters are merged into, where the caller does not and it is no UNet."""
        given = bool(args) or "components" in kwargs or self.network_name == self.unet_name
        return kwargs if given else {**kwargs, "components": [self.network_name]}

    @property
    def own_coupling(self) -> Coupling:
        """What a call takes that names none: that of the active adapters (the last of several) if their file
        says it, else `config.coupling`.
        """
        records = self._active_records()
        coupling: Coupling = records[-1].coupling if records else self.config["coupling"]
        return coupling

    @property
    def _loaded(self) -> dict[str, object]:
        """peft's configurations of the UNet's adapters, by name: they come and go with the adapters."""
        loaded: dict[str, object] = getattr(self.network, "peft_config", {})
        return loaded

    def _active_records(self) -> list[AdapterRecord]:
        """Of the adapters that take part in a forward now, in their order."""
        if not self._loaded:
            return []
        from peft.tuners.tuners_utils import BaseTunerLayer

        layer = next(each for each in self.network.modules() if isinstance(each, BaseTunerLayer))
        active = [] if layer.disable_adapters else layer.active_adapters
        records = (getattr(self._loaded[name], RECORD, None) for name in active)
        return [each for each in records if each is not None]

    def _check_base(self, record: AdapterRecord) -> None:
        """Raise ModelError if the base here is of another kind than the one that the adapters know."""
        here = {
            "distance_slope": self.backbone.distance_slope,
            "prediction_type": prediction_of(self.scheduler),
        }
        for name, value in here.items():
            trained = getattr(record, name)
            if trained != value:
                raise ModelError(
                    f"The adapters were trained on {record.base}, with {name} {trained}, but this model has "
                    f"{value}: load them on the base that they were trained on."
                )
