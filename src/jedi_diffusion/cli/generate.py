"""`jedi generate`: from photos and prompts to pictures, a contact sheet and settings that repeat them."""

from __future__ import annotations

import hashlib
import logging
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from jedi_diffusion import __version__, choosing, devices, models
from jedi_diffusion.calls import (
    LESS_MEMORY,
    Call,
    first_seed,
    pictures_said,
    references_said,
    run_call,
)
from jedi_diffusion.cli import attention_map, options, show_notices
from jedi_diffusion.cli.options import GenerateOptions, Recorded, RunOptions, Wanted
from jedi_diffusion.credentials import Seal, seal_of, unsigned
from jedi_diffusion.errors import ModelError, PictureError, UsageError
from jedi_diffusion.files import free_suffix, json_bytes, make_folder, slugs, with_suffix, write_file
from jedi_diffusion.options import OF_MODEL, SizedSampling
from jedi_diffusion.pictures import (
    WHITE,
    contact_sheet,
    fit_square,
    open_picture,
    png_bytes,
    read_parameters,
    save_png,
)
from jedi_diffusion.references import Reference, faded, open_mask_of, placed, with_found_masks
from jedi_diffusion.remembered import ReferenceMemory
from jedi_diffusion.vision.enlarge import Enlarger, enlarger_of, unchanged
from jedi_diffusion.watermark import marked

if TYPE_CHECKING:
    from jedi_diffusion.choosing import Judge, Verdict
    from jedi_diffusion.joint.record import AttentionRecord
    from jedi_diffusion.pipeline import JeDiPipeline
    from jedi_diffusion.visibility import Box

logger = logging.getLogger(__name__)

SHEET = "sheet.png"
SETTINGS = "settings.json"
SHEET_PICTURES = 64
"""Pictures that the contact sheet shows at most."""
SHEET_COLUMNS = 6
UNLIMITED = 2**62
"""Bytes for the references of a run, which are in memory during each call anyway."""
UNCHECKED = 20
"""Pictures of the model's own size, references included, whose memory is not estimated beforehand."""
LIBRARIES = ("torch", "diffusers", "transformers", "safetensors", "numpy", "pillow")


@dataclass(frozen=True)
class Item:
    """A picture to make."""

    prompt: str
    seed: int
    file: str

    @property
    def map_file(self) -> str:
        return attention_map.map_file(self.file)


@dataclass(frozen=True)
class Photo:
    """A given photo, decoded, and the SHA-256 of its file; its mask in 8 bits of gray, and its strength.

    found: the mask of its subject, where it was to be found. subject, region: as a `Reference` has them.
    """

    path: str
    picture: Image.Image
    sha256: str
    mask: Mask | None = None
    strength: float = 1.0
    found: Image.Image | None = None
    subject: int = 0
    region: Box | None = None

    def label(self) -> str:
        """Return what it is called on a contact sheet."""
        strength = "" if self.strength == 1 else f", strength {self.strength:g}"
        subject = "" if self.region is None else f", subject {self.subject}"
        return f"reference{', masked' if self.mask or self.found else ''}{strength}{subject}"


@dataclass(frozen=True)
class Mask:
    """A given mask, of its photo's size, and the SHA-256 of its file."""

    path: str
    picture: Image.Image
    sha256: str


@dataclass
class Run:
    """What a run is about to make, and what it has made."""

    options: GenerateOptions
    folder: Path
    items: list[Item]
    references: list[Photo]
    suffix: str
    seal: Seal = unsigned
    enlarge: Enlarger = unchanged
    judge: Judge | None = None
    made: int = 0
    shown: list[Image.Image] = field(default_factory=list)

    def path(self, name: str) -> Path:
        return self.folder / with_suffix(name, self.suffix)


def run(arguments: list[str]) -> None:
    """Check all that can be checked, then load the model, then make the pictures. Raises JeDiError."""
    given = options.with_library(options.parse(arguments))
    options.check(given)
    show_notices()
    models.check_model_name(given.model, given.lora)
    seal = seal_of(given.content_credentials, public_name(given.model))
    recorded = options.read_settings(given.from_) if given.from_ else None
    references = read_references(given)
    if recorded:
        check_same_references(recorded, references)
    if given.dry_run:
        print(dry_run(given, references))
        return
    job = replace(plan(given, references), seal=seal)
    pipe, job = load(job, recorded)
    check_memory(pipe, job)
    job.judge = judge_of(job, pipe)
    settings = describe(job, pipe, models.fingerprint(pipe))
    if recorded:
        check_same_model(recorded, settings)
    write_file(job.path(SETTINGS), json_bytes(settings, indent=2))
    try:
        with progress(len(job.items) * job.options.choose_best * (job.options.steps or 0)) as bar:
            make(job, pipe, settings, bar)
    except KeyboardInterrupt:
        made = f"{job.made} of {len(job.items)} pictures are in {job.folder}"
        raise KeyboardInterrupt(f"Interrupted: {made}; repeat with --from {job.path(SETTINGS)}.") from None
    save_png(job.path(SHEET), sheet(job))
    for photo in job.references if given.library else ():
        print(f"Reference:     {photo.path}")
    for item in job.items:
        print(job.path(item.file))
        if job.options.attention_map is not None:
            print(f"Attention:     {job.path(item.map_file)}")
    print(f"Contact sheet: {job.path(SHEET)}")
    print(f"Settings:      {job.path(SETTINGS)}")


def dry_run(given: GenerateOptions, references: Sequence[Photo]) -> str:
    """Return what a run would do, in lines. Raises JeDiError."""
    from jedi_diffusion.cli.dry_run import describe
    from jedi_toybox import folder_of

    models.quiet_libraries()
    folder = folder_of(given.model)
    sketch = models.outline(folder)
    photos = [(each.path, each.picture) for each in references]
    return describe(sketch, given, resolved(given, sketch), folder, photos)


def read_references(given: Wanted) -> list[Photo]:
    """Return the photos, upright RGB, and their masks, given or found.

    Raises PictureError that names the file.
    """
    count = len(given.reference)
    masks, strengths = given.mask or [""] * count, given.strength or [1.0] * count
    subjects, regions = given.subject or [0] * count, [options.region_of(each) for each in given.region]
    photos = []
    for path, mask, strength, subject in zip(given.reference, masks, strengths, subjects, strict=True):
        picture, data = open_picture(path), bytes_of(path)
        drawn = read_mask(mask, path, picture, data) if mask else None
        digest, region = hashlib.sha256(data).hexdigest(), regions[subject] if regions else None
        photos.append(Photo(path, picture, digest, drawn, strength, subject=subject, region=region))
    return with_found_subjects(photos) if given.auto_mask else photos


def with_found_subjects(photos: Sequence[Photo]) -> list[Photo]:
    """Return the photos, with the mask of the subject of each that has none."""
    given = [Reference(each.picture, mask=each.mask.picture if each.mask else None) for each in photos]
    found = [cast("Image.Image | None", each.mask) for each in with_found_masks(given)]
    pairs = zip(photos, found, strict=True)
    return [photo if photo.mask else replace(photo, found=mask) for photo, mask in pairs]


def read_mask(path: str, photo: str, picture: Image.Image, data: bytes) -> Mask:
    """Return the mask of a photo, as large as that was decoded, from the photo's file.

    Raises PictureError.
    """
    if not Path(path).is_file():
        raise PictureError(f"{path} is not a file.")
    own = bytes_of(path)
    drawn = open_mask_of(data, photo, own, path)
    if drawn.size != picture.size:  # large photos are decoded at a reduced scale
        drawn = drawn.resize(picture.size, Image.Resampling.BOX)
    return Mask(path, drawn, hashlib.sha256(own).hexdigest())


def bytes_of(path: str) -> bytes:
    """Return what is in a file. Raises PictureError."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise PictureError(f"{path} cannot be read: {error.strerror}.") from error


def check_same_references(recorded: Recorded, references: Sequence[Photo]) -> None:
    """Raise PictureError when a photo or a mask of a repeated run is no longer the one that it used."""
    rows = [each for row in recorded.references for each in (row, row.mask) if each is not None]
    before = {row.path: row for row in rows}
    for file in [each for photo in references for each in (photo, photo.mask) if each is not None]:
        row = before.get(file.path)
        if row is not None and not row.fits(file.sha256):
            raise PictureError(f"{file.path} has changed since the run that is to be repeated.")


def check_same_model(recorded: Recorded, settings: dict[str, Any]) -> None:
    """Raise ModelError when a repeated run would use other weights; say so when libraries have changed."""
    before, now = recorded.model, settings["model"]
    if before.name == now["name"] and before.fingerprint != now["fingerprint"]:
        raise ModelError(f"The weights of {now['name']} have changed since the run that is to be repeated.")
    for name, current in settings["versions"].items():
        if recorded.versions.get(name, current) != current:
            logger.warning("%s is now %s; results may differ slightly from the recorded run.", name, current)


def plan(given: GenerateOptions, references: list[Photo]) -> Run:
    """Return names, seeds, the enlarger, and the folder, which is made and tried.

    Raises OutputError, UsageError.
    """
    enlarge = enlarger_of(given.enlarge)
    items = []
    for number, (prompt, name) in enumerate(zip(given.prompt, slugs(given.prompt), strict=True)):
        first = first_seed(given.seed, number, given.images_per_prompt, given.joint_targets)
        seeds = range(first, first + given.images_per_prompt)
        items += [Item(prompt, seed, f"{name}_{seed}.png") for seed in seeds]
    folder = make_folder(given.out or ".")
    names = [SHEET, SETTINGS, *(item.file for item in items)]
    if given.attention_map is not None:
        names += [item.map_file for item in items]
    suffix = "" if given.overwrite else free_suffix(folder, names)
    return Run(given, folder, items, references, suffix, enlarge=enlarge)


def load(job: Run, recorded: Recorded | None) -> tuple[JeDiPipeline, Run]:
    """Return the pipeline, and the run with device, dtype and size resolved.

    Raises ModelError, UsageError.
    """
    pipe = load_pipe(job.options)
    if recorded:
        import torch

        torch.set_num_threads(recorded.threads)  # sums over another number of threads round differently
    job = replace(job, options=resolved(job.options, pipe))
    attention_map.new_record(job.options)  # a point in pixels is held against the model's own size
    return pipe, job


def check_memory(pipe: JeDiPipeline, job: Run) -> None:
    """Raise UsageError where a call of the run would take more memory than there is, and as `pixels_read`.

    job: with options that are `resolved`. Calls that are not much larger than the model's own pictures are
    not estimated: to run the model for its figures takes some seconds.
    """
    from jedi_diffusion import costs

    given, count = job.options, len(job.references)
    at_once = len(job.items) if given.joint_targets else min(len(job.items), given.batch)
    how, own, of_references = sampling_of(given), models.own_size(pipe), pixels_read(job, pipe)
    if how.width * how.height * at_once + of_references <= UNCHECKED * own**2:
        return
    figures = replace(costs.measure(pipe, own), reference_pixels=of_references // max(1, count))
    need = figures.bytes(figures.work(how, at_once, count, given.joint_targets))
    free = costs.free_memory(pipe.device)
    if need > free:
        raise UsageError(
            f"{pictures_said(at_once, how)} at once with {references_said(count)} would take "
            f"about {need / 2**30:.1f} GB of memory, and {free / 2**30:.1f} GB are free; {LESS_MEMORY}."
        )


def load_pipe(given: RunOptions) -> JeDiPipeline:
    """Return the pipeline that the options name. Raises ModelError, UsageError."""
    device = devices.pick_device(given.device)
    pipe = models.load_model(given.model, device, devices.pick_dtype(given.dtype, device), given.lora)
    models.set_scheduler(pipe, given.scheduler)
    return pipe


def resolved(given: GenerateOptions, pipe: JeDiPipeline) -> GenerateOptions:
    """Return the options, with the pipeline's own for what they leave open."""
    own = {
        "device": pipe.device.type,
        "dtype": str(pipe.dtype).removeprefix("torch."),
        "size": given.size or models.own_size(pipe),
        **own_sampling(given, pipe),
        "coupling": given.coupling or ("joint" if given.joint_targets else pipe.own_coupling),
        "temperature": pipe.config["temperature"] if given.temperature is None else given.temperature,
        "masking": given.masking or pipe.config["masking"],
    }
    return given.model_copy(update=own)


def own_sampling(given: GenerateOptions, pipe: JeDiPipeline) -> dict[str, Any]:
    """Return the model's own steps and guidance for those that are left open."""
    chosen = {name: getattr(given, name) for name in OF_MODEL}
    made = {name: getattr(pipe.own_sampling, name) if each is None else each for name, each in chosen.items()}
    if made["image_guidance"] is None:
        made["image_guidance"] = made["guidance"]
    return made


def describe(job: Run, pipe: JeDiPipeline, fingerprint: str) -> dict[str, Any]:
    """Return the settings file: everything that decides what the pictures look like, as plain JSON values."""
    import torch

    record = options.to_record(job.options)
    return {
        "program": f"jedi-diffusion {__version__}",
        "options": record,
        "model": {
            "name": record["model"],
            "fingerprint": fingerprint,
            "scheduler": type(pipe.scheduler).__name__,
        },
        "references": [recorded_reference(each, job.options.record_names) for each in job.references],
        "pictures": [recorded_picture(job, item) for item in job.items],
        "threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in libraries_of(job.options)},
    }


def libraries_of(given: GenerateOptions) -> tuple[str, ...]:
    """Return the libraries that pictures depend on."""
    return LIBRARIES if given.enlarge is None else (*LIBRARIES, "ncnn")


def recorded_reference(reference: Photo, with_digest: bool) -> dict[str, object]:
    """Return a reference in the settings file; see `RecordedReference`."""
    row = recorded_file(reference, with_digest)
    return {**row} if reference.mask is None else {**row, "mask": recorded_file(reference.mask, with_digest)}


def recorded_file(file: Photo | Mask, with_digest: bool) -> dict[str, str]:
    """See `RecordedFile`."""
    row = {"path": str(Path(file.path).resolve())}
    if with_digest:
        return {**row, "sha256": file.sha256}
    salt = secrets.token_hex(16)
    return {**row, "salt": salt, "digest": options.salted(file.sha256, salt)}


def recorded_picture(job: Run, item: Item) -> dict[str, Any]:
    """Return a picture in the settings file: its file, prompt and seed, and the file of its attention map."""
    row = {"file": job.path(item.file).name, "prompt": item.prompt, "seed": item.seed}
    if job.options.attention_map is not None:
        row["attention_map"] = job.path(item.map_file).name
    return row


def progress(steps: int) -> tqdm:
    """Return a bar over the steps of all pictures, with the time left."""
    return tqdm(total=steps, unit="step", file=sys.stderr, dynamic_ncols=True)


def make(job: Run, pipe: JeDiPipeline, settings: dict[str, Any], bar: tqdm) -> None:
    """Make the pictures, batch after batch, and write each, sealed, as soon as it is there."""
    given, memory = job.options, ReferenceMemory(UNLIMITED, most=1)
    pairs = fitted_references(job, pipe)
    shown = [picture for picture, _ in pairs]
    references = [
        Reference(picture, mask=mask, strength=photo.strength, subject=photo.subject, region=photo.region)
        for (picture, mask), photo in zip(pairs, job.references, strict=True)
    ]
    for batch in batches(job):
        bar.set_description(f"pictures {job.made + 1}-{job.made + len(batch)} of {len(job.items)}")
        record = attention_map.new_record(given)

        def draw(items: list[Item], record: AttentionRecord | None = record) -> list[Image.Image]:
            return sample(pipe, given, references, items, bar, record, memory)

        kept = drawn(job, batch, draw)
        for number, (item, (picture, chosen)) in enumerate(zip(batch, kept, strict=True)):
            large = job.enlarge(picture)
            large = marked(large) if given.watermark else large
            png = png_bytes(large, parameters_of(item, settings) | chosen)
            write_file(job.path(item.file), job.seal(png))
            if record is not None:
                name = f"{item.prompt} (seed {item.seed})"
                figure = attention_map.draw(given, record, number, picture, shown, name)
                parameters = {**parameters_of(item, settings), "attention_map": given.attention_map}
                save_png(job.path(item.map_file), figure, parameters)
            job.made += 1
            if job.made <= SHEET_PICTURES:
                job.shown.append(large)
    if job.judge is not None:
        note_chosen(job, settings)


def judge_of(job: Run, pipe: JeDiPipeline) -> Judge | None:
    """Return what chooses among draws, None where all are kept. Raises UsageError where it is missing."""
    given = job.options
    if given.choose_best == 1:
        return None
    shown = [cut_out(picture, mask) for picture, mask in fitted_references(job, pipe)]
    return choosing.judge_of(given.judge or choosing.own_judge(given.model), shown)


def cut_out(picture: Image.Image, mask: Image.Image | None) -> Image.Image:
    """Return a picture with white where its mask is black."""
    return picture if mask is None else Image.composite(picture, Image.new("RGB", picture.size, WHITE), mask)


def drawn(
    job: Run, items: Sequence[Item], sample: Callable[[list[Item]], list[Image.Image]]
) -> list[tuple[Image.Image, dict[str, object]]]:
    """Return a picture for each item, and with --choose-best what its file says of the choice."""
    if job.judge is None:
        return [(picture, {}) for picture in sample(list(items))]
    count, given = job.options.choose_best, job.options
    draws = [replace(item, seed=seed) for item in items for seed in choosing.seeds_of(item.seed, count)]
    starts = range(0, len(draws), given.batch)
    pictures = [each for start in starts for each in sample(draws[start : start + given.batch])]
    verdicts = job.judge.verdicts(pictures, [each.prompt for each in draws])
    kept: list[tuple[Image.Image, dict[str, object]]] = []
    for start in range(0, len(draws), count):
        best = max(range(start, start + count), key=lambda number: verdicts[number].rank)
        kept.append((pictures[best], {"chosen": choice(draws[start : start + count], verdicts, start, best)}))
    return kept


def choice(draws: Sequence[Item], verdicts: Sequence[Verdict], start: int, best: int) -> dict[str, object]:
    """Return which of the draws, from number `start` on, was kept, and the scores of all."""
    scored = zip(draws, verdicts[start : start + len(draws)], strict=True)
    return {
        "seed": draws[best - start].seed,
        "draws": [{"seed": item.seed, **verdict.record()} for item, verdict in scored],
    }


def note_chosen(job: Run, settings: dict[str, Any]) -> None:
    """Write into the settings what the pictures' files say of the choice among their draws."""
    for row in settings["pictures"]:
        path = job.folder / row["file"]
        found = (read_parameters(path) or {}) if path.exists() else {}
        if "chosen" in found:
            row["chosen"] = found["chosen"]
    write_file(job.path(SETTINGS), json_bytes(settings, indent=2))


def pixels_read(job: Run, pipe: JeDiPipeline) -> int:
    """Return the pixels of all photos together, as the model reads them.

    Raises PictureError or UsageError for those that it cannot read, before anything is written.
    """
    size, photos = job.options.size or 0, [picture for picture, _ in fitted_references(job, pipe)]
    read = pipe.backbone.fit_references(photos, (size, size))
    return sum(each.shape[1] * each.shape[2] for each in read)


def fitted_references(job: Run, pipe: JeDiPipeline) -> list[tuple[Image.Image, Image.Image | None]]:
    """Return the photos and their masks as the pipeline takes them. Raises PictureError."""
    return [fitted(each, job.options, pipe.backbone.own_shape is None) for each in job.references]


def fitted(photo: Photo, given: GenerateOptions, is_square: bool) -> tuple[Image.Image, Image.Image | None]:
    """Return a photo and its mask as the pipeline takes them; is_square: as squares of the size of the
    pictures.

    Raises PictureError where nothing of the mask is left.
    """
    picture, mask = photo.picture, photo.found if photo.mask is None else photo.mask.picture
    if is_square:
        size, fit = given.size or 0, given.fit
        picture = fit_square(picture, size, fit)
        if mask is not None:  # what pads is white, and no part of the subject
            mask = ImageOps.invert(fit_square(ImageOps.invert(mask), size, fit)).convert("L")
    if mask is not None and photo.region is not None and given.place_subjects:
        picture, mask = placed(picture, mask, photo.region)
    if mask is None or np.asarray(mask).any():
        return picture, mask
    if photo.mask is not None:
        raise PictureError(
            f"{photo.path} is cut to its centre, where its mask {photo.mask.path} shows nothing: cut both to "
            "the subject, or take --fit pad."
        )
    return picture, None  # the subject that was found lies beside the centre


def batches(job: Run) -> Iterator[list[Item]]:
    """Yield the pictures that are computed at once: `--batch` many, or with `--joint-targets` all, as one
    set.
    """
    count = len(job.items) if job.options.joint_targets else job.options.batch
    for start in range(0, len(job.items), count):
        yield job.items[start : start + count]


def sample(
    pipe: JeDiPipeline,
    given: GenerateOptions,
    references: list[Reference],
    batch: list[Item],
    bar: tqdm,
    record: AttentionRecord | None = None,
    memory: ReferenceMemory | None = None,
) -> list[Image.Image]:
    """Return a picture for each item, from the item's own seed, in one call of the pipeline.

    Raises JeDiError.
    """
    prompts, seeds = [item.prompt for item in batch], [item.seed for item in batch]
    captions, how = given.reference_prompt, sampling_of(given)
    call = Call(
        prompts, seeds, references, captions, how, joint_targets=given.joint_targets, owner=given.model
    )
    return run_call(pipe, call, lambda _step, _latents: bar.update(len(batch)), record, memory=memory)


def sampling_of(given: GenerateOptions) -> SizedSampling:
    """Return how the pictures are computed; the size is resolved."""
    return given.at(given.size or 0, given.size or 0)


def parameters_of(item: Item, settings: dict[str, Any]) -> dict[str, Any]:
    """Return what the file of a picture carries."""
    return {**picture_parameters(settings), "prompt": item.prompt, "seed": item.seed}


def picture_parameters(settings: dict[str, Any]) -> dict[str, Any]:
    """Return what a picture carries of the settings: all but folders, and but the names and digests of
    references, which are nobody else's business unless --record-names says so.

    An attention map leaves no trace either: the picture is the same without it.
    """
    dropped = (
        "prompt",
        "reference",
        "mask",
        "out",
        "seed",
        "images_per_prompt",
        "attention_map",
        "record_names",
    )
    kept = {name: value for name, value in settings["options"].items() if name not in dropped}
    kept["model"] = public_name(kept["model"])
    if "lora" in kept:
        named = map(models.with_scale, kept["lora"])
        kept["lora"] = [f"{public_name(source)}:{scale:g}" for source, scale in named]
    return {
        "program": settings["program"],
        "options": kept,
        "model": {**settings["model"], "name": kept["model"]},
        "references": [
            {"file": Path(row["path"]).name, "sha256": row["sha256"]} if "sha256" in row else {}
            for row in settings["references"]
        ],
        "versions": settings["versions"],
    }


def public_name(model: str) -> str:
    """Return the model's name without the folders around it."""
    return Path(model).resolve().name if Path(model).exists() else model


def as_read(photo: Photo, given: GenerateOptions) -> Image.Image:
    """Return a photo as a square, faded where its mask is black."""
    return faded(*fitted(photo, given, is_square=True))


def sheet(job: Run) -> Image.Image:
    """Return references beside what was made of them: a row (or more) for every prompt."""
    given = job.options
    given_photos = [(as_read(each, given), each.label()) for each in job.references[:4]]
    rows: list[list[tuple[Image.Image, str] | None]] = []
    pairs = list(zip(job.items, job.shown, strict=False))  # the first SHEET_PICTURES
    for prompt in dict.fromkeys(item.prompt for item, _ in pairs):
        cells = [(picture, f"{prompt} ({item.seed})") for item, picture in pairs if item.prompt == prompt]
        for start in range(0, len(cells), SHEET_COLUMNS):
            left = given_photos if not rows else [None] * len(given_photos)
            rows.append([*left, *cells[start : start + SHEET_COLUMNS]])
    return contact_sheet(rows, title=f"jedi generate, model {public_name(given.model)}")
