"""The recipe of `jedi evaluate`: methods to compare, beside what they are compared on."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from jedi_diffusion.evaluation.recipe import Evaluation
from jedi_diffusion.methods.blip_diffusion import BlipDiffusionMethod
from jedi_diffusion.methods.copy_input import CopyMethod
from jedi_diffusion.methods.custom_diffusion import CustomDiffusionMethod
from jedi_diffusion.methods.diffusekrona import DiffuseKronAMethod
from jedi_diffusion.methods.dreambooth import DreamBoothMethod
from jedi_diffusion.methods.free_custom import FreeCustomMethod
from jedi_diffusion.methods.ip_adapter import IPAdapterMethod
from jedi_diffusion.methods.joint import ModelMethod
from jedi_diffusion.methods.oracle import OracleMethod
from jedi_diffusion.methods.svdiff import SVDiffMethod
from jedi_diffusion.methods.text_only import TextOnlyMethod
from jedi_diffusion.methods.textual_inversion import TextualInversionMethod
from jedi_diffusion.methods.training_free import TrainingFreeMethod

Method = Annotated[
    ModelMethod
    | TextOnlyMethod
    | TrainingFreeMethod
    | FreeCustomMethod
    | DreamBoothMethod
    | TextualInversionMethod
    | CustomDiffusionMethod
    | SVDiffMethod
    | DiffuseKronAMethod
    | IPAdapterMethod
    | BlipDiffusionMethod
    | CopyMethod
    | OracleMethod,
    Field(discriminator="kind"),
]


class EvaluationRecipe(Evaluation):
    """One evaluation: a set, methods, encoders, and how scores are averaged."""

    methods: Annotated[tuple[Method, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _names_differ(self) -> EvaluationRecipe:
        names = [method.name for method in self.methods]
        if len(set(names)) < len(names):
            raise ValueError("methods: two methods have the same name")
        return self
