"""Recipes that train a pretrained model of the Stable Diffusion family on sets of pictures (section 4)."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from jedi_diffusion.data.recipe import Source
from jedi_diffusion.train.config import Fraction, Section
from jedi_diffusion.trainer.settings import OptimizerName
from jedi_toybox.collection import ToyboxSection

Kept = Annotated[float, Field(gt=0, le=1)]
AnySource = Annotated[Source | ToyboxSection, Field(discriminator="kind")]


class DataSection(Section):
    """What is read, in which size, and how many unusable items are put aside before a run stops."""

    resolution: Annotated[int, Field(ge=16, multiple_of=8, description="pixels of a side")] = 512
    sources: list[AnySource] = Field(min_length=1)
    workers: NonNegativeInt = Field(2, description="reading processes beside each training process")
    bad_items: NonNegativeInt = 100


class Conditions(Section):
    """What the model is shown, drawn for every set: probabilities per picture (`reference`, `no_caption` of a
    reference), per set (`no_text`: all its captions empty), and per step (`cached`: the coupling).
    `reference_tokens`: bounds of the share of a reference's tokens that the other pictures read, drawn for
    every set.
    """

    reference: Fraction = 0.5
    no_caption: Fraction = 0.0
    no_text: Fraction = 0.1
    cached: Fraction = 0.0
    reference_tokens: tuple[Kept, Kept] = (1.0, 1.0)

    @model_validator(mode="after")
    def _bounds_rise(self) -> "Conditions":
        low, high = self.reference_tokens
        if low > high:
            raise ValueError(
                f"reference_tokens goes from the smaller share to the larger, not {low} to {high}"
            )
        return self


class Optimization(Section):
    """How weights are learned. `batch` counts the sets of a step over all processes, `micro_batch` the
    pictures that a process holds at a time; gradients of a step's parts add up.
    """

    steps: PositiveInt
    batch: PositiveInt
    micro_batch: PositiveInt = 8
    learning_rate: PositiveFloat = 5e-5
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: NonNegativeInt = Field(1000, description="steps over which the learning rate rises")
    weight_decay: float = Field(0.01, ge=0)
    optimizer: OptimizerName = Field("adamw", description="adamw8bit: moments in 8 bits, by bitsandbytes")
    clip: PositiveFloat = Field(1.0, description="largest norm of the gradient")
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.9999
    reference_weight: float = Field(1.0, ge=0, description="weight of reference pictures in eq. 2")
    min_snr: PositiveFloat | None = Field(None, description="gamma of min-SNR weighting")
    precision: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    gradient_checkpointing: bool = False
    channels_last: bool = False
    attention: Literal["fused", "plain"] = Field(
        "fused", description="plain: two matrix products, faster than torch's CPU kernel for short sequences"
    )
    sharded: bool = Field(False, description="split weights and optimizer over the processes (FSDP2)")

    @model_validator(mode="after")
    def _sharding_fits(self) -> "Optimization":
        if self.sharded and self.channels_last:
            raise ValueError("sharded splits weights by rows, which channels_last does not keep together")
        if self.sharded and self.optimizer == "adamw8bit":
            raise ValueError("sharded training splits AdamW's moments, which adamw8bit keeps in tables")
        if self.sharded and self.precision == "float16":
            raise ValueError("sharded training runs in bfloat16 or float32, not in float16")
        return self


class LoraSection(Section):
    """Train low-rank adapters of the attention layers, and the new input channels, instead of all weights."""

    rank: PositiveInt = 32
    alpha: PositiveInt | None = Field(None, description="scale of the adapters; the rank if not given")


class Records(Section):
    """What is kept while training: a checkpoint every so many steps (the newest ones, and for good every
    `keep_every`th step), a log row, a sheet of samples.
    """

    save_every: PositiveInt = 1000
    keep_last: PositiveInt = 2
    keep_every: PositiveInt | None = None
    log_every: PositiveInt = 10
    sample_every: PositiveInt | None = 1000
    trackers: tuple[Literal["tensorboard", "trackio", "wandb"], ...] = ()


class JointRecipe(Section):
    """One training run of a joint-image model.

    `base` is a diffusers folder or a Hub id: SD 1.x, 2.x or SDXL, plain or inpainting, or a joint model to be
    trained further; "toybox" is the bundled model. `fresh_unet` keeps all of it but the UNet, which starts
    from random weights. `lora` left out trains all weights of the UNet.
    """

    free_keys: ClassVar[tuple[str, ...]] = (
        "data.workers",
        "data.bad_items",
        "training.micro_batch",
        "training.gradient_checkpointing",
        "training.channels_last",
        "training.attention",
        "training.sharded",
        "records",
    )
    """Keys and sections that change speed, memory and records, and results by rounding only."""
    fixed_keys: ClassVar[tuple[str, ...]] = (
        *("base", "fresh_unet", "seed", "data", "lora"),
        "training.optimizer",
    )
    """What a run that has begun cannot go on with another value of."""

    name: str
    base: str
    fresh_unet: bool = False
    seed: int = Field(0, ge=0)
    data: DataSection
    conditions: Conditions = Conditions()
    training: Optimization
    lora: LoraSection | None = None
    records: Records = Records()

    @model_validator(mode="after")
    def _sets_fit(self) -> "JointRecipe":
        largest = max(max(source.sizes) for source in self.data.sources)
        if largest > self.training.micro_batch:
            raise ValueError(
                f"a set of {largest} pictures does not fit training.micro_batch, {self.training.micro_batch}"
            )
        if self.lora and (self.training.sharded or self.fresh_unet):
            raise ValueError(
                "lora trains small adapters of a base: it goes with neither sharded nor fresh_unet"
            )
        return self
