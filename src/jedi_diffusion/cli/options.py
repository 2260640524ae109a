"""What `jedi generate` can be told, where it is read from, and what is checked before anything is loaded."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from jedi_diffusion.cli.attention_map import read_point
from jedi_diffusion.errors import UsageError
from jedi_diffusion.files import read_text
from jedi_diffusion.limits import (
    MAX_GUIDANCE,
    MAX_PICTURES,
    MAX_REFERENCES,
    MAX_SEED,
    MAX_SET,
    MAX_STEPS,
    check_options,
    check_side,
    check_text,
)

Repeated = tyro.conf.UseAppendAction[tuple[str, ...]]
CertificateAndKey = Annotated[tuple[str, str] | None, tyro.conf.arg(metavar="CERT KEY")]


@dataclass(frozen=True)
class GenerateOptions:
    """New pictures of the subject that the references show, one for every prompt.

    Writes PNGs named by prompt and seed, a contact sheet and the settings. Existing files are kept: a run
    whose names are taken adds -2, -3 ... to all of its own.
    """

    reference: Repeated = ()
    """A photo of the subject: PNG, JPEG, WEBP, GIF, BMP or TIFF. Give several for more angles."""
    prompt: Repeated = ()
    """What to show, in words: "a robot on the beach"."""
    out: str | None = None
    """Folder for the results."""
    model: str = "toybox"
    """"toybox" (bundled), a folder, or a Hub id. A plain Stable Diffusion model runs untrained."""
    reference_prompt: Repeated = ()
    """What a reference shows, in words: one for all, or one for each in order."""
    images_per_prompt: int = 1
    """Pictures for every prompt, each with its own seed."""
    steps: int = 25
    """Denoising steps."""
    guidance: float = 3.0
    """Scale of eq. 3, and of the text in the staged modes (eq. 4)."""
    guidance_mode: Literal["joint", "text_first", "image_first", "text_only"] = "joint"
    """Eq. 3 (joint), eq. 4 (text_first: more identity; image_first: more prompt), or on the text alone."""
    image_guidance: float | None = None
    """Scale of the references in the staged modes; that of --guidance if not given."""
    coupling: Literal["joint", "cached"] | None = None
    """The paper's form, or references computed once and reused; the model's own if not given."""
    null_set: Literal["joint", "single"] = "joint"
    """The unconditional branch: with the re-noised references (paper), or each target alone (cheaper)."""
    joint_targets: bool = False
    """All pictures share one set: same subject throughout, also from prompts alone."""
    temperature: float | None = None
    """0 to 1: how much noise a picture starts from; less is calmer. The model's own if not given."""
    size: int | None = None
    """Side of the square pictures in pixels; the model's own if not given."""
    enlarge: Literal[4] | None = None
    """4: pictures with sides four times as long, by Real-ESRGAN. Needs the extra `enlarge`."""
    fit: Literal["crop", "pad"] = "crop"
    """How photos become square: their centre, or all of them on white."""
    scheduler: Literal["model", "ddim", "dpm++", "euler", "lcm"] = "model"
    """Sampler; that of the model if not given."""
    seed: int = 0
    """Picture k of every prompt has seed + k (with --joint-targets counted over all prompts)."""
    batch: int = 4
    """Pictures computed at once: more is faster and takes more memory."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute."""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """Number format; float32, on CUDA bfloat16, if not given."""
    attention_map: str | None = None
    """A point x,y of the pictures, in pixels (64,80) or fractions (0.5,0.62): draws where it looks."""
    overwrite: bool = False
    """Replace files of earlier runs."""
    record_names: bool = False
    """Write file names and SHA-256 of the references into each picture; by default only their number."""
    content_credentials: CertificateAndKey = None
    """Sign pictures with C2PA: a certificate chain and its private key, as PEM files."""
    from_: Annotated[str | None, tyro.conf.arg(name="from")] = None
    """A settings.json of an earlier run to repeat; options given beside it change it."""


class RecordedModel(BaseModel):
    """Which weights a run used."""

    name: str
    fingerprint: str


class RecordedReference(BaseModel):
    """Which photo a run used: with --record-names its SHA-256, else a digest of that with a salt."""

    path: str
    sha256: str = ""
    salt: str = ""
    digest: str = ""

    def fits(self, sha256: str) -> bool:
        """Whether a photo of this SHA-256 is the one that was used."""
        return sha256 == self.sha256 or (bool(self.salt) and salted(sha256, self.salt) == self.digest)


class Settings(BaseModel):
    """What a repeat needs of a settings.json."""

    options: dict[str, Any]
    model: RecordedModel
    references: list[RecordedReference]
    threads: int = Field(ge=1, le=4096)
    versions: dict[str, str]


def salted(sha256: str, salt: str) -> str:
    """A digest by which whoever has both a photo and the settings can tell that it was used, nobody else."""
    return hashlib.sha256(f"{salt} {sha256}".encode()).hexdigest()


def parse(arguments: list[str]) -> GenerateOptions:
    """The options on a command line, over those of its `--from` file. Raises UsageError."""
    given = _read(arguments, GenerateOptions())
    if given.from_ is None:
        return given
    base = from_settings(read_settings(given.from_))
    # tyro appends to defaults; a list given beside --from is meant to take the place of the recorded one.
    base = replace(
        base,
        reference=() if given.reference else base.reference,
        prompt=() if given.prompt else base.prompt,
        reference_prompt=() if given.reference_prompt else base.reference_prompt,
    )
    return _read(arguments, base)


def _read(arguments: list[str], default: GenerateOptions) -> GenerateOptions:
    return tyro.cli(GenerateOptions, args=arguments, default=default, prog="jedi generate")


def read_settings(path: str | Path) -> Settings:
    """The settings that a run has written. Raises UsageError that names the file."""
    beside = Path(path).with_name("settings.json")
    if Path(path).suffix.lower() in (".png", ".jpg", ".jpeg", ".webp"):
        raise UsageError(
            f"{path} is a picture, which does not say where its references are: give the settings.json of "
            f"its run to --from{f', {beside}' if beside.is_file() else ''}."
        )
    try:
        return Settings.model_validate(json.loads(read_text(path, UsageError)))
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"])) or "its top level"
        raise UsageError(f"{path} is not a settings.json of `jedi generate`: {place} is wrong.") from error
    except ValueError as error:
        raise UsageError(f"The settings {path} cannot be read: {error}.") from error


def from_settings(settings: Settings) -> GenerateOptions:
    """The options recorded in settings. Raises UsageError for unknown names and wrong types."""
    recorded = settings.options
    unknown = sorted(recorded.keys() - to_record(GenerateOptions(enlarge=4)).keys())
    if unknown:
        raise UsageError(f"The settings hold options that this version does not know: {', '.join(unknown)}.")
    try:
        return TypeAdapter(GenerateOptions).validate_python(recorded)
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"The recorded option {first['loc'][0]} is wrong: {first['msg']}.") from error


def to_record(options: GenerateOptions) -> dict[str, Any]:
    """Everything that `from_settings` needs to repeat a run from any folder: paths are absolute."""
    record = asdict(options)
    del record["from_"], record["overwrite"], record["content_credentials"]
    if options.model != "toybox" and Path(options.model).exists():
        record["model"] = str(Path(options.model).resolve())
    if options.enlarge is None:  # so that records of pictures that are not enlarged are what they always were
        del record["enlarge"]
    if options.out:
        record["out"] = str(Path(options.out).resolve())
    record["reference"] = [str(Path(path).resolve()) for path in options.reference]
    return record


def check(options: GenerateOptions) -> None:
    """Everything about the request that can be judged without its files or model. Raises UsageError."""
    _check_numbers(options)
    for prompt in (*options.prompt, *options.reference_prompt):
        check_text(prompt)
    references, captions, prompts = len(options.reference), len(options.reference_prompt), len(options.prompt)
    if prompts == 0:
        raise UsageError('No prompt is given: say what to show with --prompt "...".')
    if not options.out:
        raise UsageError("No folder for the results is given: name one with --out.")
    pictures = prompts * options.images_per_prompt
    if pictures > MAX_PICTURES:
        raise UsageError(f"{pictures} pictures are asked for; at most {MAX_PICTURES} are made in one run.")
    if references == 0 and not (options.joint_targets and pictures > 1):
        raise UsageError(
            "0 references are given; at least 1 is needed: --reference photo.jpg. (Without one, "
            "--joint-targets and 2 or more pictures make a set of one new subject.)"
        )
    if options.attention_map is not None:
        read_point(options.attention_map, options.size)
        if references == 0:
            raise UsageError(
                "--attention-map shows where pictures look in the references: give one with --reference."
            )
    if references > MAX_REFERENCES:
        raise UsageError(f"{references} references are given; at most {MAX_REFERENCES} are used at once.")
    if options.joint_targets and pictures + references > MAX_SET:
        raise UsageError(f"{pictures} pictures and {references} references do not fit one set of {MAX_SET}.")
    if options.joint_targets and options.coupling == "cached":
        raise UsageError("--joint-targets needs --coupling joint: cached targets never see each other.")
    if captions not in (0, 1, references):
        raise UsageError(
            f"{captions} reference prompts for {references} references: give none, one for all, or one each."
        )


def _check_numbers(options: GenerateOptions) -> None:
    limits = {
        "images_per_prompt": (1, MAX_PICTURES),
        "steps": (1, MAX_STEPS),
        "guidance": (0.0, MAX_GUIDANCE),
        "image_guidance": (0.0, MAX_GUIDANCE),
        "temperature": (0.0, 1.0),
        "seed": (0, MAX_SEED),
        "batch": (1, 256),
    }
    assert limits.keys() <= {field.name for field in fields(options)}
    check_options(options, limits)
    if options.size is not None:
        check_side("--size", options.size)
