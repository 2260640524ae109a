"""What `jedi generate` can be told, where it is read from, and what is checked before anything is loaded."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from jedi_diffusion import models
from jedi_diffusion.choosing import MAX_DRAWS, JudgeName
from jedi_diffusion.cli.attention_map import read_point
from jedi_diffusion.cli.parsing import parsed
from jedi_diffusion.errors import UsageError
from jedi_diffusion.files import read_text
from jedi_diffusion.options import (
    MAX_PICTURES,
    MAX_REFERENCES,
    Between,
    Compute,
    GuidanceMode,
    NullSet,
    Scale,
    Seed,
    Settings,
    SquareSampling,
    Strength,
    check_text,
    fault,
)

if TYPE_CHECKING:
    from jedi_diffusion.visibility import Box


def _listed(value: object) -> object:
    return [value] if isinstance(value, str | int | float) else value


def _files(value: object) -> object:
    listed = _listed(value)
    return ["" if each is None else each for each in listed] if isinstance(listed, list | tuple) else listed


OF_REFERENCES = {"--mask": "", "--strength": "1.0", "--subject": "0"}
"""Options that belong to the --reference before them, and what they are where they are not given."""
OF_LIBRARY = {"library", "library_subject", "library_photos"}
"""Options that choose references, which are then recorded themselves."""
Repeated = tyro.conf.UseAppendAction[Annotated[tuple[str, ...], BeforeValidator(_listed)]]
Masks = tyro.conf.UseAppendAction[Annotated[tuple[str, ...], BeforeValidator(_files)]]
Strengths = tyro.conf.UseAppendAction[Annotated[tuple[Strength, ...], BeforeValidator(_listed)]]
Subjects = tyro.conf.UseAppendAction[
    Annotated[tuple[Annotated[int, Between(0, MAX_REFERENCES - 1)], ...], BeforeValidator(_listed)]
]
CertificateAndKey = Annotated[tuple[str, str] | None, tyro.conf.arg(metavar="CERT KEY")]


class Subject(Settings):
    """What pictures are made from."""

    reference: Repeated = ()
    """A photo of the subject: PNG, JPEG, WEBP, GIF, BMP or TIFF. Give several for more angles."""
    mask: Masks = ()
    """What of the --reference before it is read: a picture of its size, white there and black beside it, or
    with a transparent ground."""
    strength: Strengths = ()
    """How much the --reference before it counts: 2 as if it were given twice; 1 if not given."""
    subject: Subjects = ()
    """Which subject the --reference before it shows, from 0, where one picture is to show several; 0 if not
    given."""
    region: Repeated = ()
    """Where the pictures show a subject: left,top,right,bottom in shares of their sides, 0,0,0.5,1; the first
    is subject 0's, the next subject 1's ... Only there are the subject's references read."""
    prompt: Repeated = ()
    """What to show, in words: "a robot on the beach"."""
    reference_prompt: Repeated = ()
    """What a reference shows, in words: one for all, or one for each in order."""
    library: str | None = None
    """A library (`jedi library add`) whose photos of the subject that the prompts name are the references."""
    library_subject: str | None = None
    """The name of the subject in the library, in place of the one in the prompts."""
    library_photos: Annotated[int, Between(1, MAX_REFERENCES)] = 4
    """How many photos of a library are taken at most."""


class Wanted(SquareSampling, Subject):
    """Which pictures to make, and how: what `jedi generate` and a line of `jedi batch` share."""

    steps: Annotated[int, Between(1, 1000)] | None = None  # type: ignore[assignment]
    """Denoising steps; the model's own if not given."""
    guidance: Scale | None = None  # type: ignore[assignment]
    """Scale of eq. 3, and of the text in the staged modes (eq. 4); the model's own if not given."""
    guidance_mode: GuidanceMode | None = None  # type: ignore[assignment]
    """Eq. 3 (joint), eq. 4 (text_first: more identity; image_first: more prompt), or on the text alone; the
    model's own if not given."""
    null_set: NullSet | None = None  # type: ignore[assignment]
    """The unconditional branch: with the re-noised references (paper), or each target alone (cheaper); the
    model's own if not given."""
    images_per_prompt: Annotated[int, Between(1, MAX_PICTURES)] = 1
    """Pictures for every prompt, each with its own seed."""
    choose_best: Annotated[int, Between(1, MAX_DRAWS)] = 1
    """Draw so many for each picture and keep the best by identity, prompt and distance to copies."""
    judge: JudgeName | None = None
    """What chooses: toybox (the toybox's scorer; the bundled model's own) or lite2 (photos; the extra
    imagenet)."""
    joint_targets: bool = False
    """All pictures share one set: same subject throughout, also from prompts alone."""
    enlarge: Literal[4] | None = None
    """4: pictures with sides four times as long, by Real-ESRGAN. Needs the extra `enlarge`."""
    place_subjects: bool = False
    """Move the subject of each masked reference into its --region, on white, before it is read."""
    fit: Literal["crop", "pad"] = "crop"
    """How photos become square: their centre, or all of them on white."""
    seed: Seed = 0
    """Picture k of every prompt has seed + k (with --joint-targets counted over all prompts)."""


class RunOptions(Compute):
    """What `jedi generate` and `jedi batch` share of a run."""

    model: str = "toybox"
    """"toybox" (bundled), a folder, or a Hub id. A plain Stable Diffusion or FLUX.1 model runs untrained,
    FLUX.2 [klein] and FLUX.1 Kontext as they are."""
    lora: Repeated = ()
    """Adapters on the model, a folder or a file, with a scale if not 1: runs/mine/lora:0.7. May be given
    several times."""
    scheduler: Literal["model", "ddim", "dpm++", "euler", "lcm"] = "model"
    """Sampler; that of the model if not given."""
    batch: Annotated[int, Between(1, 256)] = 4
    """Pictures computed at once: more is faster and takes more memory."""
    overwrite: bool = False
    """Replace files of earlier runs."""
    content_credentials: CertificateAndKey = None
    """Sign pictures with C2PA: a certificate chain and its private key, as PEM files."""
    watermark: bool = True
    """Mark pictures, invisibly, as made by jedi-diffusion."""


class GenerateOptions(RunOptions, Wanted):
    """New pictures of the subject that the references show, one for every prompt.

    Writes PNGs named by prompt and seed, a contact sheet and the settings. Existing files are kept: a run
    whose names are taken adds -2, -3 ... to all of its own.
    """

    out: str | None = None
    """Folder for the results."""
    attention_map: str | None = None
    """A point x,y of the pictures, in pixels (64,80) or fractions (0.5,0.62): draws where it looks."""
    dry_run: bool = False
    """Say what would be done, with which of the model's own settings, and what it takes; make nothing."""
    record_names: bool = False
    """Write file names and SHA-256 of the references into each picture; by default only their number."""
    from_: Annotated[str | None, tyro.conf.arg(name="from")] = None
    """A settings.json of an earlier run to repeat; options given beside it change it."""


class RecordedModel(BaseModel):
    """Which weights a run used."""

    name: str
    fingerprint: str


class RecordedFile(BaseModel):
    """Which file a run used: with --record-names its SHA-256, else a digest of that with a salt."""

    path: str
    sha256: str = ""
    salt: str = ""
    digest: str = ""

    def fits(self, sha256: str) -> bool:
        """Return whether a file of this SHA-256 is the one that was used."""
        return sha256 == self.sha256 or (bool(self.salt) and salted(sha256, self.salt) == self.digest)


class RecordedReference(RecordedFile):
    """Which photo a run used, and with which mask."""

    mask: RecordedFile | None = None


class Recorded(BaseModel):
    """What a repeat needs of a settings.json."""

    options: dict[str, Any]
    model: RecordedModel
    references: list[RecordedReference]
    threads: int = Field(ge=1, le=4096)
    versions: dict[str, str]


WITHOUT_WATERMARK = {"watermark": False}
"""What records of earlier versions do not say."""


def salted(sha256: str, salt: str) -> str:
    """Return a digest by which whoever has both a photo and the settings can tell that it was used, nobody
    else.
    """
    return hashlib.sha256(f"{salt} {sha256}".encode()).hexdigest()


def one_for_each_reference(arguments: list[str]) -> list[str]:
    """Return a command line with a --mask and a --strength for each --reference, in order, if any has one.

    As it is typed, each belongs to the reference before it. Raises UsageError where there is none, or it has
    two.
    """
    given: dict[str, dict[int, str]] = {option: {} for option in OF_REFERENCES}
    words, others, references = list(arguments), [], list[str]()
    while words:
        word = words.pop(0)
        option, is_whole, value = word.partition("=")
        has_value = bool(is_whole) or (bool(words) and not words[0].startswith("--"))
        if option == "--reference" and has_value:
            references.append(value if is_whole else words[0])
        if option not in OF_REFERENCES or not has_value:
            others.append(word)
            continue
        value = value if is_whole else words.pop(0)
        if not references:
            raise UsageError(f"{option} {value} has no --reference before it that it could belong to.")
        if len(references) in given[option]:
            raise UsageError(f"--reference {references[-1]} has a second {option}, {value}; give one.")
        given[option][len(references)] = value
    for option, values in given.items():
        if values:
            each = [values.get(number, OF_REFERENCES[option]) for number in range(1, len(references) + 1)]
            others += [f"{option}={value}" for value in each]
    return others


def parse(arguments: list[str]) -> GenerateOptions:
    """Return the options on a command line, over those of its `--from` file. Raises UsageError."""
    arguments = one_for_each_reference(arguments)
    given = parsed(GenerateOptions, arguments, "jedi generate")
    if given.from_ is None:
        return given
    base = from_settings(read_settings(given.from_))
    # tyro appends to defaults; a list given beside --from is meant to take the place of the recorded one.
    lists = [name for name in ("reference", "prompt", "reference_prompt", "region") if getattr(given, name)]
    lists += [name.removeprefix("--") for name in OF_REFERENCES] if given.reference else []
    base = base.model_copy(update=dict.fromkeys(lists, ()))
    return parsed(GenerateOptions, arguments, "jedi generate", base)


def with_library(options: GenerateOptions) -> GenerateOptions:
    """Return the options with references from the library that they name, if they do. Raises JeDiError."""
    if options.library is None:
        return options
    from jedi_diffusion.library import Library

    if options.reference:
        raise UsageError("Both --library and --reference are given: take the references from one of them.")
    library = Library(options.library)
    prompts = " ".join(options.prompt)
    found = library.choose(prompts, options.library_subject, options.library_photos)
    chosen: dict[str, object] = {"reference": tuple(each.path for each in found)}
    if not options.reference_prompt:
        chosen["reference_prompt"] = tuple(each.caption or each.subject for each in found)
    return options.model_copy(update=chosen)


def read_settings(path: str | Path) -> Recorded:
    """Return the settings that a run has written. Raises UsageError that names the file."""
    beside = Path(path).with_name("settings.json")
    if Path(path).suffix.lower() in (".png", ".jpg", ".jpeg", ".webp"):
        raise UsageError(
            f"{path} is a picture, which does not say where its references are: give the settings.json of "
            f"its run to --from{f', {beside}' if beside.is_file() else ''}."
        )
    try:
        return Recorded.model_validate(json.loads(read_text(path, UsageError)))
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"])) or "its top level"
        raise UsageError(f"{path} is not a settings.json of `jedi generate`: {place} is wrong.") from error
    except ValueError as error:
        raise UsageError(f"The settings {path} cannot be read: {error}.") from error


def from_settings(settings: Recorded) -> GenerateOptions:
    """Return the options recorded in settings. Raises UsageError for unknown names and wrong values."""
    try:
        return GenerateOptions.model_validate(WITHOUT_WATERMARK | settings.options)
    except ValidationError as error:
        raise UsageError(f"A recorded option does not fit: {fault(error)}.") from error


def to_record(options: GenerateOptions) -> dict[str, Any]:
    """Return everything that `from_settings` needs to repeat a run from any folder: paths are absolute."""
    left_out = {"from_", "overwrite", "content_credentials", "dry_run", *OF_LIBRARY}
    record = options.model_dump(mode="json", exclude=left_out)
    if options.model != "toybox" and Path(options.model).exists():
        record["model"] = str(Path(options.model).resolve())
    if options.lora:
        record["lora"] = models.placed(options.lora)
    else:
        del record["lora"]
    if options.enlarge is None:  # so that records of pictures that are not enlarged are what they always were
        del record["enlarge"]
    if not options.place_subjects:
        del record["place_subjects"]
    if options.choose_best == 1:  # nor of those that are not chosen
        del record["choose_best"], record["judge"]
    if options.out:
        record["out"] = str(Path(options.out).resolve())
    record["reference"] = [str(Path(path).resolve()) for path in options.reference]
    record["mask"] = [path and str(Path(path).resolve()) for path in options.mask]
    for name, usual in (
        ("mask", ""),
        ("strength", 1),
        ("subject", 0),
        ("region", None),
    ):  # records of whole references are what they always were
        if all(each == usual for each in record[name]):
            del record[name]
    return record


def check(options: GenerateOptions) -> None:
    """Everything about the request that can be judged without its files or model. Raises UsageError."""
    for prompt in (*options.prompt, *options.reference_prompt):
        check_text(prompt)
    references, captions, prompts = len(options.reference), len(options.reference_prompt), len(options.prompt)
    if prompts == 0:
        raise UsageError('No prompt is given: say what to show with --prompt "...".')
    if not options.out and not options.dry_run:
        raise UsageError("No folder for the results is given: name one with --out.")
    pictures = prompts * options.images_per_prompt
    if pictures * options.choose_best > MAX_PICTURES:
        drawn = f" and {options.choose_best} drawn for each" if options.choose_best > 1 else ""
        raise UsageError(
            f"{pictures} pictures are asked for{drawn}; at most {MAX_PICTURES} are made in one run."
        )
    if options.choose_best > 1:
        for name, is_given in (
            ("--joint-targets", options.joint_targets),
            ("--attention-map", options.attention_map is not None),
        ):
            if is_given:
                raise UsageError(f"--choose-best draws each picture several times: leave {name} out.")
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
    if options.joint_targets and options.coupling == "cached":
        raise UsageError("--joint-targets needs --coupling joint: cached targets never see each other.")
    of_each = {"masks": options.mask, "strengths": options.strength, "subjects": options.subject}
    for name, own in of_each.items():
        if len(own) not in (0, references):
            raise UsageError(
                f"{len(own)} {name} for {references} references: give none, or one each, in order."
            )
    check_regions(options)
    if captions not in (0, 1, references):
        raise UsageError(
            f"{captions} reference prompts for {references} references: give none, one for all, or one each."
        )


def check_regions(options: GenerateOptions) -> None:
    """Raise UsageError for regions that are none, are missing, or of subjects that no reference shows."""
    regions = [region_of(text) for text in options.region]
    shown = set(options.subject or [0])
    if options.place_subjects and not regions:
        raise UsageError(
            "--place-subjects moves subjects into their regions: give --region, or leave it out."
        )
    for number in range(len(regions)):
        if number not in shown:
            raise UsageError(
                f"--region {options.region[number]} is that of subject {number}, which no reference shows: "
                f"say --subject {number} after its --reference."
            )
    if regions and max(shown) >= len(regions):
        raise UsageError(
            f"Subject {max(shown)} has no region: there are {len(regions)} for subjects 0 to {max(shown)}. "
            "Give one --region for each, in order, or none."
        )
    if options.attention_map is not None and (regions or shown != {0}):
        raise UsageError("--attention-map shows pictures of one subject: leave --subject and --region out.")


def region_of(text: str) -> Box:
    """Return a region as it is typed. Raises UsageError."""
    from jedi_diffusion.visibility import check_box

    try:
        left, top, right, bottom = map(float, text.split(","))
    except ValueError as error:
        raise UsageError(f"The region {text!r} is not left,top,right,bottom, such as 0,0,0.5,1.") from error
    check_box((left, top, right, bottom))
    return left, top, right, bottom
