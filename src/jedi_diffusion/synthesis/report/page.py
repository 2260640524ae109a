"""The report as one HTML page, and its tables."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from jedi_diffusion.estimates import Estimate
from jedi_diffusion.files import make_folder, write_file
from jedi_diffusion.page.charts import Bars, Lines
from jedi_diffusion.page.html import Gallery, Part, Text, render_page
from jedi_diffusion.page.tables import Table
from jedi_diffusion.synthesis.records import Reason, Stage
from jedi_diffusion.synthesis.report.facts import Facts, as_json
from jedi_diffusion.synthesis.report.filters import ALL, SETS
from jedi_diffusion.synthesis.report.similarity import SetFeatures
from jedi_diffusion.synthesis.report.thresholds import GRID

PAGE, RECORD = "report.html", "report.json"
NONE = "–"
BARS = 25
"""Bars of a distribution at most; the rest is summed up below."""
PAPER = {
    "The paper's S³ data set": ("1.6M", "~2K", {"CLIP-I": "0.849", "DINO": "0.751"}),
    "The paper's real photos": ("30", "15", {"CLIP-I": "0.885", "DINO": "0.774"}),
}
"""Table 8."""


def write_report(
    facts: Facts, galleries: Sequence[Gallery], out: str | Path, remarks: Sequence[str] = ()
) -> tuple[Path, Path]:
    """Write the page and the JSON into a folder; gives their paths. Raises OutputError.

    remarks: what a reader must know of the encoders or the photos.
    """
    folder = make_folder(out)
    page, record = folder / PAGE, folder / RECORD
    write_file(record, json.dumps(as_json(facts), indent=1, ensure_ascii=False).encode())
    write_file(page, report_page(facts, galleries, remarks).encode())
    return page, record


def report_page(facts: Facts, galleries: Sequence[Gallery], remarks: Sequence[str] = ()) -> str:
    """Return the whole page as HTML, pictures embedded."""
    state = "" if facts.whole else f"This run is not finished: {_shards(facts)} are whole. "
    summary = (
        f"{state}{facts.sets:,} sets with {facts.pictures:,} pictures of {facts.contents.subjects:,} "
        f"subjects, from {facts.contents.collages:,} collages."
    )
    parts: list[Part] = [
        Text("What this is", [*_explained(facts), *remarks]),
        *summary_tables(facts),
        *_distributions(facts),
        *_truth(facts),
        *galleries,
    ]
    return render_page(f"Training sets: {facts.recipe.name}", summary, parts)


def summary_tables(facts: Facts) -> list[Table]:
    """Return what the command prints too."""
    return [_stages(facts), _reasons(facts), table_8(facts), _duplicates(facts)]


def _shards(facts: Facts) -> str:
    return f"{len(facts.markers):,} of {facts.planned:,} shards"


def _explained(facts: Facts) -> list[str]:
    encoders = ", ".join(
        f"{each.image_column} ({each.fingerprint[:16]})" for each in facts.encoders if each.image_column
    )
    return [
        f"Folder {facts.folder}, {_shards(facts)}, seed {facts.recipe.seed}, affinity threshold "
        f"{facts.recipe.stages.affinity}. Everything that was made or rejected is counted; the pictures of "
        f"{len(facts.sampled):,} of the {facts.sets:,} sets were read, drawn at random.",
        f"Encoders with fingerprints: {encoders or 'none'}. Numbers of different encoders do not compare.",
        "The page is made of the records of the run; its numbers stand in report.json beside it.",
    ]


def _stages(facts: Facts) -> Table:
    seconds = facts.seconds
    rows = []
    for step, count in facts.counts.items():
        rejected = count.rejected.total()
        judged = count.made + rejected if step == Stage.INSTANCE else count.received
        rows.append(
            (
                step,
                f"{count.received:,}",
                f"{count.made:,}",
                f"{rejected:,}",
                _percent(rejected, judged),
                f"{seconds[step]:,.1f}",
            )
        )
    note = (
        "Records, in the order of the steps; what a record is changes on the way: collages, instances, "
        "groups, pictures, sets. Rejected instances are a share of all that were found, other records of "
        "those that went in. Seconds are summed over all workers."
    )
    return Table("Stages", ("step", "in", "out", "rejected", "share", "seconds"), rows, note)


def _reasons(facts: Facts) -> Table:
    rows = [
        (f"{step}: {Reason[reason.upper()].value}", f"{number:,}")
        for step, count in facts.counts.items()
        for reason, number in Counter(count.rejected).most_common()
    ]
    return Table("Reasons", ("reason", "rejected"), rows or [("nothing was rejected", "0")])


def table_8(facts: Facts) -> Table:
    """Table 8: subjects, categories, and similarity of pictures of one subject, beside real photos."""
    contents, columns = facts.contents, facts.columns
    rows = [
        (
            "this run",
            f"{contents.subjects:,}",
            f"{len(contents.objects):,}",
            *_inside(facts.features, columns),
        ),
        ("this run, different subjects of one name", NONE, NONE, *_between(facts.features, columns)),
    ]
    if facts.photo_features is not None:
        kinds = len({each.category for each in facts.photos})
        real = _inside(facts.photo_features, columns)
        rows.append(("real photos", f"{len(facts.photos):,}", f"{kinds:,}", *real))
        between = _between(facts.photo_features, columns)
        rows.append(("real photos, different subjects of one name", NONE, NONE, *between))
    rows += [
        (name, subjects, categories, *(known.get(column, NONE) for column in columns))
        for name, (subjects, categories, known) in PAPER.items()
        if known.keys() & set(columns)
    ]
    note = (
        "Mean cosine over all pairs of pictures in a set, with 95% intervals over sets. A category is an "
        "object's name. Pictures of different subjects that are called the same show what sharing no subject "
        "gives: the farther below, the better the encoder tells subjects apart."
    )
    return Table("Table 8: similarity inside sets", ("", "subjects", "categories", *columns), rows, note)


def _inside(features: SetFeatures, columns: Sequence[str]) -> list[str]:
    return [_shown(features.similarity(column).inside) for column in columns]


def _between(features: SetFeatures, columns: Sequence[str]) -> list[str]:
    return [_shown(features.similarity(column).between) for column in columns]


def _duplicates(facts: Facts) -> Table:
    rows = [
        ("pairs of pictures inside a set", _share(facts.features.copies_inside())),
        ("pictures with a near duplicate in another set", _share(facts.features.copies_across())),
    ]
    note = (
        "Pictures are near duplicates where small versions of them differ by less than a tenth of the range, "
        "inside a set also after a small shift. Sets of copies teach a model to copy its references."
    )
    return Table("Near duplicates", ("", "share"), rows, note)


def _distributions(facts: Facts) -> list[Part]:
    contents = facts.contents
    sizes = [(f"{size} pictures", count) for size, count in sorted(contents.sizes.items())]
    return [
        Bars("Set sizes", sizes, "Sets by their number of pictures."),
        _most("Kinds of objects", contents.categories, "Sets by the kind in the list of objects."),
        _most("Objects", contents.objects, "Sets of each object."),
        _most("Styles", contents.styles, "Pictures by the instruction that restyled them."),
    ]


def _most(title: str, counter: Counter[str], note: str) -> Bars:
    """Return the commonest as bars; the others, which would be the longest bar, in words."""
    first, total = counter.most_common(BARS), counter.total()
    rest = total - sum(count for _, count in first)
    if rest:
        note += f" {len(counter) - BARS} others have {rest:,} together ({rest / total:.1%})."
    return Bars(title, first, note, total)


def _truth(facts: Facts) -> list[Part]:
    """Return what the filters did, where it is known what was drawn; what other thresholds would
    have given.
    """
    curve, own = facts.contents.curve, facts.recipe.stages.affinity
    parts: list[Part] = [_filters(facts)] if facts.contents.filters.collages else []
    if not curve.pairs:
        return parts
    lines = {"instances that have a partner": curve.share_kept}
    if curve.known:
        lines = {"precision of joined pairs": curve.precision, "recall of pairs": curve.recall, **lines}
    points = {name: list(zip(GRID.tolist(), each.tolist(), strict=True)) for name, each in lines.items()}
    note = (
        f"From the affinities of {curve.pairs:,} pairs of instances; whole components are joined. "
        + (
            "A pair is right where both show one subject."
            if curve.known
            else "Who is shown is not known here, so only what would be kept."
        )
        + (
            f" {curve.incomplete:,} collages are left out: affinities are missing."
            if curve.incomplete
            else ""
        )
    )
    chart = Lines("Affinity thresholds", points, "threshold", [(own, f"this run: {own}")], note)
    return [*parts, chart, _choices(facts)]


def _filters(facts: Facts) -> Table:
    found = facts.contents.filters
    rows = [
        (
            name,
            f"{each.received:,}",
            f"{each.dropped:,}",
            NONE if name in (SETS, ALL) else f"{each.rightly:,}",
            f"{each.right:,}",
            f"{each.both:,}",
            _percent(each.both, each.right),
            f"{each.kept:,}",
            _percent(each.both, each.kept),
        )
        for name, each in found.scores.items()
    ]
    head = (
        "filter",
        "instances in",
        "dropped",
        "rightly",
        "right pairs in",
        "kept",
        "recall",
        "pairs kept",
        "precision",
    )
    lost = f" {found.lost:,} instances that later stages rejected are left out." if found.lost else ""
    note = (
        f"Over {found.collages:,} collages of which it is known what was drawn. A pair of instances of one "
        "collage is right where both show the same subject whole, each in a view of its own. An instance is "
        "dropped rightly where it is no such view, by the affinity graph where no other instance shows its "
        "subject. Pairs kept are those that are still in the running, then those in one group, then those in "
        "one set: large groups are divided, so that the last recall is below 1 by design. All together "
        f"starts from the pairs that were drawn.{lost}"
    )
    return Table("Filters against the truth", head, rows, note)


def _choices(facts: Facts) -> Table:
    curve = facts.contents.curve
    rows = []
    for name, place in curve.choices(facts.recipe.stages.affinity).items():
        at = curve.at(place)
        rows.append((name, *(_number(at[key]) for key in ("threshold", "precision", "recall", "kept"))))
    head = ("choice", "threshold", "precision", "recall", "instances kept")
    note = "The threshold is the key stages.affinity of a recipe. Wrong pairs harm more than lost ones."
    return Table("Thresholds to choose from", head, rows, note)


def _shown(estimate: Estimate | None) -> str:
    return NONE if estimate is None else str(estimate)


def _share(estimate: Estimate | None) -> str:
    return NONE if estimate is None else f"{estimate.mean:.1%} ({estimate.low:.1%} to {estimate.high:.1%})"


def _percent(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else NONE


def _number(value: float | None) -> str:
    return NONE if value is None else f"{value:.3f}"
