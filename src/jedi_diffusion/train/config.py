"""Training recipes: YAML read into checked models, every value with its unit and range."""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from jedi_diffusion.devices import Precision
from jedi_diffusion.options import Masking, Section
from jedi_diffusion.recipes import checked, read_yaml

Fraction = Annotated[float, Field(ge=0, le=1)]
DEVICE_KINDS = ("cpu", "cuda")


class ModelSection(Section):
    """Architectures. `unet` and `scheduler` go to UNet2DConditionModel and DDIMScheduler as they are."""

    autoencoder: dict[str, Any] = Field(default_factory=dict, description="settings of PatchAutoencoder")
    unet: dict[str, Any] = Field(description="settings of UNet2DConditionModel; channels in and out follow")
    scheduler: dict[str, Any] = Field(default_factory=dict, description="settings of DDIMScheduler")
    distance_slope: float = Field(
        0.0, ge=0, allow_inf_nan=False, description="coupled attention prefers near positions by so much"
    )
    temperature: Fraction = Field(1.0, description="scale of the first noise in calls that name none")
    masking: Masking = Field("tokens", description="how calls that do not say read masked references")
    text_width: PositiveInt = 192
    text_layers: PositiveInt = 2
    text_heads: PositiveInt = 4
    text_length: PositiveInt = Field(24, description="tokens a caption, start and end included")

    @model_validator(mode="after")
    def _heads_fit(self) -> "ModelSection":
        if self.text_width % self.text_heads:
            width, heads = self.text_width, self.text_heads
            raise ValueError(f"text_heads must divide text_width, {width}, but is {heads}")
        return self


class Stage(Section):
    """What both kinds of stage share.

    `share` is the part of the time budget (`--minutes`) that the stage gets; without a budget it runs
    `steps` steps.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9_-]+$")]
    resolution: Annotated[int, Field(ge=16, multiple_of=8, description="pixels of a side")] = 128
    subjects: PositiveInt = Field(description="training subjects, rendered before the stage starts")
    pictures: PositiveInt = Field(4, description="pictures of each subject")
    steps: PositiveInt = Field(description="optimizer steps where no time budget is given")
    share: Annotated[float, Field(gt=0, le=1)]
    batch: PositiveInt = Field(description="pictures a step")
    learning_rate: PositiveFloat
    warmup: PositiveInt = 100
    weight_decay: float = Field(0.01, ge=0)
    clip: PositiveFloat = Field(1.0, description="largest norm of the gradient")
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.999
    attention: Literal["fused", "plain"] = Field(
        "fused", description="plain: two matrix products, faster than torch's CPU kernel for short sequences"
    )


class AutoencoderStage(Stage):
    """Pictures to latents and back. `latent_noise` is added to latents (unit variance) while training."""

    kind: Literal["autoencoder"]
    latent_noise: float = Field(0.05, ge=0)


def main_coupling(cached: float) -> Literal["joint", "cached"]:
    """Return the coupling that most steps used, where `cached` is the share of "cached"; "joint" if half
    each.
    """
    return "cached" if cached > 0.5 else "joint"


class JointStage(Stage):
    """The joint-image model on latents of the finished autoencoder.

    `set_sizes` maps set size to its part of the pictures. Probabilities are per picture (`reference`,
    `name_only`, `no_caption`: what a reference's caption becomes), per set (`no_text`: all captions empty)
    and per step (`cached`).
    """

    kind: Literal["joint"]
    mirrored: bool = Field(False, description="every subject also as its mirror image, rendered once")
    set_sizes: dict[PositiveInt, PositiveFloat]
    reference: Fraction = 0.5
    name_only: Fraction = 0.3
    no_caption: Fraction = 0.2
    no_text: Fraction = 0.12
    cached: Fraction = 0.5
    reference_weight: float = Field(0.2, ge=0, description="weight of reference pictures in eq. 2")
    subject_weight: float = Field(3.0, ge=0, description="loss weight is 1 + this on the subject")
    min_snr: PositiveFloat | None = Field(None, description="gamma of min-SNR weighting")

    @model_validator(mode="after")
    def _sets_fit(self) -> "JointStage":
        if max(self.set_sizes) > self.pictures:
            raise ValueError(
                f"set_sizes goes up to {max(self.set_sizes)}, but a subject has only {self.pictures} pictures"
            )
        return self


class ShowroomSection(Section):
    """What `jedi showroom build` was given and made, and how much of the sets comes from it."""

    packages: str = Field(description="folder of the downloaded packages")
    folder: str = Field(description="folder that `jedi showroom build` filled")
    share: Fraction = Field(0.75, description="share of the sets; the others are the toybox's")


class Recipe(Section):
    """One training run: what is built, and the stages that train it in order.

    source "showroom": real-looking subjects beside the toybox's, as `showroom` says.
    """

    free_keys: ClassVar[tuple[str, ...]] = ("save_minutes", "sample_minutes")
    """Keys that change no result."""
    fixed_keys: ClassVar[tuple[str, ...]] = ("source", "showroom", "seed", "supersample", "alike", "model")
    """What a run that has begun cannot go on with another value of."""

    name: str
    source: Literal["toybox", "showroom"]
    showroom: ShowroomSection | None = None
    seed: int = Field(0, ge=0)
    supersample: PositiveInt = Field(1, description="its square is the rays of a rendered pixel")
    alike: Fraction = Field(
        0.0, description="share of subjects shown by one camera, all but one picture plain"
    )
    precision: Precision = Field(
        "auto", description="auto: bfloat16 where the hardware multiplies it, else float32"
    )
    save_minutes: PositiveFloat = 5.0
    sample_minutes: PositiveFloat = 10.0
    model: ModelSection
    stages: list[Annotated[AutoencoderStage | JointStage, Field(discriminator="kind")]]

    @model_validator(mode="after")
    def _source_fits(self) -> "Recipe":
        if (self.source == "showroom") != (self.showroom is not None):
            raise ValueError("the section showroom belongs to source: showroom, and that source needs it")
        return self

    @model_validator(mode="after")
    def _stages_fit(self) -> "Recipe":
        if not self.stages or self.stages[0].kind != "autoencoder":
            raise ValueError("the first stage must be of kind autoencoder")
        if len({stage.name for stage in self.stages}) != len(self.stages):
            raise ValueError("two stages have the same name")
        fold = self.model.autoencoder.get("fold", 1)
        if not isinstance(fold, int) or fold < 1:
            raise ValueError(f"model.autoencoder.fold must be a whole number of at least 1, but is {fold!r}")
        side = 8 * fold
        for stage in self.stages:
            if stage.resolution % side:
                raise ValueError(f"{stage.name}: resolution {stage.resolution} is no multiple of {side}")
        return self


def load_recipe(path: Path, device_kind: str) -> Recipe:
    """Return the recipe of a YAML file for one kind of device ("cpu" or "cuda").

    Any value may be written per kind, `{cpu: 64, cuda: 1024}`. Raises RecipeError naming file, key and fault.
    """
    return checked(Recipe, for_device(read_yaml(path), device_kind), path)


def for_device(value: Any, kind: str) -> Any:
    """Return `value` with every mapping whose keys are exactly the device kinds replaced by its entry for
    `kind`.
    """
    if isinstance(value, dict):
        if set(value) == set(DEVICE_KINDS):
            return for_device(value[kind], kind)
        return {key: for_device(item, kind) for key, item in value.items()}
    if isinstance(value, list):
        return [for_device(item, kind) for item in value]
    return value
