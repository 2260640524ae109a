"""`jedi batch`: many jobs from a file, one a line, each picture once, however often the run is stopped."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro
from pydantic import ValidationError
from tqdm import tqdm

from jedi_diffusion import models
from jedi_diffusion.cli import generate, options, show_notices
from jedi_diffusion.cli.options import GenerateOptions, RecordedReference, RunOptions, Wanted
from jedi_diffusion.cli.parsing import parsed
from jedi_diffusion.credentials import Seal, seal_of
from jedi_diffusion.errors import JeDiError, OutputError, PictureError, UsageError
from jedi_diffusion.files import json_bytes, lines_of, make_folder, read_text, write_file
from jedi_diffusion.options import fault, without_defaults
from jedi_diffusion.pictures import read_parameters

if TYPE_CHECKING:
    from jedi_diffusion.pipeline import JeDiPipeline

REPORT = "report.json"
NAME = re.compile(r"[\w-][\w.-]{0,99}")


class BatchOptions(RunOptions):
    """Makes the pictures of many jobs, one a line of a JSON Lines file.

    A line holds options of `jedi generate`: {"reference": ["a.jpg"], "prompt": ["a robot"], "steps": 25}, and
    "name", which names its folder (by default its line number). References are looked for beside the file.
    The same command again goes on where it stopped. A line that fails is reported, and the rest goes on.
    """

    jobs: tyro.conf.Positional[str]
    """The file with the jobs."""
    out: str
    """Folder for the results; each job gets a folder of its own in it."""


class JobLine(Wanted):
    """What a line may say: `GenerateOptions` without what holds for the whole run."""

    name: str | None = None
    """Of the folder for its pictures; its line number if not given."""


@dataclass
class Line:
    """A line of the file: its options, or what is wrong with it; what has become of it."""

    number: int
    given: GenerateOptions | None = None
    error: str | None = None
    made: int = 0
    kept: int = 0


def run(arguments: list[str]) -> None:
    """Read and check all lines, load the model, make what is missing. Raises JeDiError if a line failed."""
    given = parsed(BatchOptions, arguments, "jedi batch")
    show_notices()
    models.check_model_name(given.model, given.lora)
    seal = seal_of(given.content_credentials, generate.public_name(given.model))
    lines = read_lines(given)
    good = [line for line in lines if line.given is not None]
    for line in lines:
        if line.error is not None:
            report_failure(line)
    if not good:
        raise UsageError(f"{given.jobs} has no line that can be done ({len(lines)} have been read).")
    out = make_folder(given.out)
    pipe = generate.load_pipe(given)
    fingerprint = models.fingerprint(pipe)
    for line in good:
        assert line.given is not None
        line.given = line.given.model_copy(update=generate.own_sampling(line.given, pipe))
    try:
        with generate.progress(sum(map(steps_of, good))) as bar:
            for line in good:
                do(line, pipe, fingerprint, bar, seal)
    except KeyboardInterrupt:
        made = sum(line.made for line in lines)
        stop = f"Interrupted: {made} new pictures are in {out}; the same command goes on."
        raise KeyboardInterrupt(stop) from None
    finally:
        rows = [{"line": e.number, "made": e.made, "kept": e.kept, "error": e.error} for e in lines]
        write_file(out / REPORT, json_bytes(rows, indent=2))
    conclude(lines, out)


def read_lines(given: BatchOptions) -> list[Line]:
    """Return the lines of the file that are not empty. Raises UsageError for a file that cannot be read."""
    lines, names = [], set()
    for number, text in enumerate(lines_of(read_text(given.jobs, UsageError)), start=1):
        if not text.strip():
            continue
        line = Line(number)
        lines.append(line)
        try:
            line.given = read_line(text, number, given)
            if line.given.out in names:
                raise UsageError("Another line has the same name.")
            names.add(line.given.out)
        except JeDiError as error:  # of the line itself, or of the library that it names
            line.given, line.error = None, str(error)
    return lines


def read_line(text: str, number: int, given: BatchOptions) -> GenerateOptions:
    """Return the checked options of a line. Raises UsageError."""
    try:
        job = JobLine.model_validate_json(text)
    except ValidationError as error:
        raise UsageError(f"{fault(error)}.") from error
    name = job.name if job.name is not None else f"{number:05d}"
    if not NAME.fullmatch(name):
        raise UsageError(f"The name {name!r} must be letters, digits, -, _ and dots.")
    if name.lower() == REPORT:
        raise UsageError(f"The name {name!r} is that of the report; take another one.")
    beside = Path(given.jobs).resolve().parent
    shared = {field: getattr(given, field) for field in RunOptions.model_fields}
    line = GenerateOptions(**shared, **job.model_dump(exclude={"name"}), out=str(Path(given.out) / name))
    files = {
        "reference": tuple(str(beside / path) for path in job.reference),
        "mask": tuple(path and str(beside / path) for path in job.mask),
    }
    line = line.model_copy(update=files)
    if line.library is not None:
        line = options.with_library(line.model_copy(update={"library": str(beside / line.library)}))
    options.check(line)
    return line


def steps_of(line: Line) -> int:
    assert line.given is not None
    given = line.given
    return (given.steps or 0) * len(given.prompt) * given.images_per_prompt * given.choose_best


def do(line: Line, pipe: JeDiPipeline, fingerprint: str, bar: tqdm, seal: Seal) -> None:
    """Make what is missing of a job. Notes in the line what fails; raises OutputError, which ends the run."""
    given = line.given
    assert given is not None
    start, job = bar.n, None
    try:
        # Names are never taken by others here: each job has a folder of its own.
        planned = given.model_copy(update={"overwrite": True})
        job = generate.plan(planned, generate.read_references(given))
        job = replace(job, options=generate.resolved(given, pipe), seal=seal)
        generate.check_memory(pipe, job)
        job.judge = generate.judge_of(job, pipe)
        settings = generate.describe(job, pipe, fingerprint)
        drop_outdated(job)
        missing = [item for item in job.items if not is_made(job, item, settings)]
        if missing and given.joint_targets:  # its pictures come as one set or not at all
            missing = job.items
        line.kept, job.items = len(job.items) - len(missing), missing
        if missing:
            write_file(job.path(generate.SETTINGS), json_bytes(settings, indent=2))
            generate.make(job, pipe, settings, bar)
    except OutputError:
        raise
    except JeDiError as error:
        line.error = str(error)
        report_failure(line)
    finally:
        line.made = 0 if job is None else job.made
    bar.total -= steps_of(line) - (bar.n - start)  # what was there, or failed, takes no time


def drop_outdated(job: generate.Run) -> None:
    """Delete the job's pictures where they were made from other references than those of now: pictures
    themselves do not tell. Raises UsageError where they may not be replaced."""
    there = [path for path in (job.path(item.file) for item in job.items) if path.exists()]
    if not there or has_same_references(job):
        return
    if not job.options.overwrite:
        raise UsageError(
            f"{there[0]} is there already, made from other references: give the line another name, or say "
            "--overwrite."
        )
    for path in there:
        path.unlink()


def has_same_references(job: generate.Run) -> bool:
    """Return whether the settings beside the pictures were written with the references of the job."""
    if not job.references:
        return True
    try:
        recorded = options.read_settings(job.path(generate.SETTINGS)).references
    except UsageError:
        return False
    pairs = zip(recorded, job.references, strict=False)
    return len(recorded) == len(job.references) and all(is_same(*pair) for pair in pairs)


def is_same(recorded: RecordedReference, photo: generate.Photo) -> bool:
    """Return whether a photo and its mask are those that were recorded."""
    if (recorded.mask is None) != (photo.mask is None):
        return False
    has_mask = recorded.mask is None or photo.mask is None or recorded.mask.fits(photo.mask.sha256)
    return recorded.fits(photo.sha256) and has_mask


def is_made(job: generate.Run, item: generate.Item, settings: dict[str, Any]) -> bool:
    """Return whether the picture is there already. Raises UsageError where another picture has its place."""
    path = job.path(item.file)
    if not path.exists():
        return False
    try:
        found = read_parameters(path) or {}
    except PictureError:
        found = {}
    expected = json.loads(json.dumps(generate.parameters_of(item, settings)))
    if what_counts(found) == what_counts(expected):
        return True
    if job.options.overwrite:
        return False
    raise UsageError(
        f"{path} is there already, made with other settings: give the line another name, or say --overwrite."
    )


def what_counts(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return a picture's parameters without what may change between two days of the same work, and without
    the names of references, which pictures need not hold."""
    dropped = ("program", "versions", "references", "chosen")
    kept = {name: value for name, value in parameters.items() if name not in dropped}
    given = without_defaults(options.WITHOUT_WATERMARK | kept.get("options", {}))
    return kept | {"options": {name: value for name, value in given.items() if name != "batch"}}


def report_failure(line: Line) -> None:
    tqdm.write(f"jedi: line {line.number}: {line.error}", file=sys.stderr)


def conclude(lines: list[Line], out: Path) -> None:
    """Say what has become of the lines. Raises JeDiError if some failed."""
    made, kept = sum(line.made for line in lines), sum(line.kept for line in lines)
    print(f"{made} new pictures are in {out}, {kept} were there already. Report: {out / REPORT}")
    failed = sum(line.error is not None for line in lines)
    if failed:
        raise JeDiError(f"{failed} of {len(lines)} lines failed; {out / REPORT} says why.")
