"""`jedi toybox score`: how well a model keeps unseen subjects, follows prompts, and does not copy."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Literal

from jedi_diffusion import __version__, devices, models
from jedi_diffusion.cli import show_notices
from jedi_diffusion.cli.parsing import parsed
from jedi_diffusion.files import make_folder, write_file
from jedi_diffusion.methods.joint import Joint
from jedi_diffusion.options import Between, Compute, SquareSampling
from jedi_diffusion.page.tables import plain
from jedi_diffusion.pictures import save_png

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from jedi_diffusion.estimates import Estimate
    from jedi_toybox.score import Benchmark, OverReferences, Scores


class ScoreOptions(SquareSampling, Compute):
    """Score a model on toybox subjects that it has never seen, each with one prompt, with 95% intervals.

    identity: 0 another subject of the same class, 1 another true picture of the subject. prompt: 0 a wrong
    scene, 1 a true render of the prompt. copy: the share of pictures nearer to a reference than true
    pictures in another scene ever are. diversity: how much pictures with other seeds differ, 0 not at all,
    1 as two true pictures. Answers that are known (a true render, another subject, a copy) are scored
    beside it. Last, how well the model's autoencoder gives back the true renders.
    """

    model: str = "toybox"
    """"toybox" (bundled), or the folder of another model trained on the toybox."""
    references: Literal[1, 2, 3] = 1
    """Reference pictures of each subject; the first is the same for all three."""
    over_references: bool = False
    """Also score 1, 2 and 3 references of different views, and 2 and 3 of one view, on the same pairs."""
    seeds: Annotated[int, Between(1, 100)] = 2
    """Pictures of each pair, for diversity; the other scores are those of the first."""
    pairs: Annotated[int, Between(2, 100_000)] = 200
    """Subjects, each with one prompt."""
    classes: Literal["known", "held_out"] = "known"
    """Unseen subjects of the classes trained on, or of classes never seen."""
    seed: Annotated[int, Between(0, 2**31)] = 0
    """Other seeds draw other subjects, prompts and noise."""
    out: str | None = None
    """File for the scores and every setting, as JSON."""
    sheet: str | None = None
    """File for a PNG: references beside outputs beside true renders."""
    encoders: str | None = None
    """Folder of other encoders (`jedi toybox encoders`)."""


def run(arguments: list[str]) -> None:
    """Render the pairs, run the model on them, print and write its scores. Raises JeDiError."""
    given = parsed(ScoreOptions, arguments, "jedi toybox score")
    show_notices()
    models.check_model_name(given.model)
    out, sheet = _prepared(given.out), _prepared(given.sheet)

    from jedi_diffusion.networks.reconstruction import describe_psnr, reconstruct
    from jedi_toybox.encoders import BUNDLED, load_encoders
    from jedi_toybox.score import Benchmark, draw_pair, score_sheet, to_picture

    device = devices.pick_device(given.device)
    encoders = load_encoders(given.encoders or BUNDLED, device)
    pipe = models.load_model(given.model, device, devices.pick_dtype(given.dtype, device))
    size = given.size or models.own_size(pipe)
    pairs = [draw_pair(number, given.references, given.seed, given.classes) for number in range(given.pairs)]
    benchmark = Benchmark.render(pairs, encoders, size, str(device))
    personalizer = Joint(pipe, given.at(size, size).arguments())
    outputs = benchmark.run(personalizer, given.seed)
    others = benchmark.run_again(personalizer, given.seeds, given.seed) if given.seeds > 1 else None
    scores, baselines = benchmark.score(outputs, others), benchmark.baselines()
    print(table({given.model: scores, **baselines}))
    print(f"A copy is a picture within {benchmark.copy_threshold:.4f} of a reference.")
    quality = reconstruct(pipe.vae, [to_picture(truth) for truth in benchmark.truth])[1]
    print(f"The autoencoder's PSNR on the {len(pairs)} true renders: {describe_psnr(quality)}")
    over = {}
    if given.over_references:
        apart, alike = (rendered_references(given, size, str(device), alike) for alike in (False, True))
        over = benchmark.over_references(personalizer, apart, alike, given.seed)
        print(table_over_references(over))
    if out:
        record = describe(given, benchmark, scores, baselines)
        record["over_references"] = {
            name: row.scores.record() | {"gain": row.gain.record()} for name, row in over.items()
        }
        record["psnr_mean"] = round(float(quality.mean()), 3)
        record["fingerprint"] = models.fingerprint(pipe)
        write_file(out, json.dumps(record, indent=2).encode())
        print(f"Scores: {out}")
    if sheet:
        save_png(sheet, score_sheet(benchmark, outputs, title(given, scores)))
        print(f"Sheet:  {sheet}")


def rendered_references(given: ScoreOptions, size: int, device: str, alike: bool) -> Tensor:
    """As many references of each pair as there can be, (P, R, 3, H, H), of different views or of one."""
    from jedi_toybox.bulk import render_many
    from jedi_toybox.score import MAX_REFERENCES, draw_pair

    count = range(given.pairs)
    pairs = [draw_pair(number, MAX_REFERENCES, given.seed, given.classes, alike) for number in count]
    specs = [spec for pair in pairs for spec in pair.references]
    drawn = render_many(specs, size, device, "references").pictures
    return drawn.unflatten(0, (len(pairs), MAX_REFERENCES))


def describe(
    given: ScoreOptions, benchmark: Benchmark, scores: Scores, baselines: dict[str, Scores]
) -> dict[str, Any]:
    """Return the JSON file: scores, what they are measured against, and every setting."""
    return {
        **scores.record(),
        "baselines": {name: each.record() for name, each in baselines.items()},
        "copy_threshold": round(benchmark.copy_threshold, 6),
        "pairs": len(benchmark.pairs),
        "references": given.references,
        "size": benchmark.size,
        "encoders": benchmark.encoders.record,
        "settings": given.model_dump(mode="json", exclude={"out", "sheet"}),
        "program": f"jedi-diffusion {__version__}",
    }


def table(rows: dict[str, Scores]) -> str:
    """Return names on the left, a column for each score."""
    head = ("", "identity", "prompt", "copy", "diversity")
    return plain(head, [[name, *map(_shown, scores)] for name, scores in rows.items()])


def table_over_references(rows: dict[str, OverReferences]) -> str:
    head = ("references", "identity", "more than with 1", "prompt", "copy")
    cells = [
        [name, *map(_shown, (row.scores.identity, row.gain, row.scores.prompt, row.scores.copy))]
        for name, row in rows.items()
    ]
    return plain(head, cells)


def _shown(estimate: Estimate | None) -> str:
    return "-" if estimate is None else str(estimate)


def title(given: ScoreOptions, scores: Scores) -> str:
    figures = ", ".join(f"{name} {value}" for name, value in scores._asdict().items() if value is not None)
    return f"{given.pairs} unseen subjects, {given.references} reference(s): {figures}"


def _prepared(path: str | None) -> Path | None:
    """Return the path of a result, after a trial that its folder can be written to: before an hour of work,
    not after.
    """
    from pathlib import Path

    if path is None:
        return None
    make_folder(Path(path).parent)
    return Path(path)
