"""Pictures to look at: kept sets, collages and what was taken of them, and what was rejected by reason."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from jedi_diffusion.page.html import Gallery, Strip
from jedi_diffusion.randomness import keyed_number
from jedi_diffusion.sets import ImageSet
from jedi_diffusion.synthesis.outputs import OutputFolder
from jedi_diffusion.synthesis.records import Reason, Stage
from jedi_diffusion.synthesis.report.facts import Facts, read_sets
from jedi_diffusion.synthesis.report.records import Box, CollageRecord, InstanceRecord, step_of

SHOWN_SETS = 4
"""Sets of each of least, middle and most alike."""
SHOWN_COLLAGES = 8
SHOWN_REJECTED = 8
"""Instances of each reason."""
COLLAGE_SIDE = 448
KEPT = ("#1b8a4b", "#2764c4", "#8a3fb5", "#0e8a94")
"""Colors of boxes, by set."""
DROPPED = "#d12f2f"


class Chosen:
    """Some collages of a run whose pictures were kept, drawn by their names and `seed`, few enough to hold.

    with_sets, without: collages of which sets came, and of which none came.
    """

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._heaps: dict[bool, list[tuple[int, int, CollageRecord]]] = {True: [], False: []}
        self._rejected: dict[str, list[tuple[int, int, CollageRecord]]] = {}
        self._count = 0

    def visit(self, collage: CollageRecord) -> None:
        """Take a collage into account."""
        if not collage.record["look"]:
            return
        self._count += 1
        rank = -keyed_number(self._seed, collage.record["look"])
        entry = (rank, self._count, collage)
        _keep(self._heaps[bool(collage.sets)], entry, SHOWN_COLLAGES)
        for reason in {each.dropped[1] for each in collage.instances if each.dropped}:
            _keep(self._rejected.setdefault(reason, []), entry, SHOWN_REJECTED)

    def collages(self, with_sets: bool) -> list[CollageRecord]:
        return [collage for _, _, collage in sorted(self._heaps[with_sets], reverse=True)]

    def rejected(self) -> dict[str, list[tuple[CollageRecord, InstanceRecord]]]:
        """Return instances by reason, at most SHOWN_REJECTED of each, spread over collages."""
        found = {}
        for reason in sorted(self._rejected):
            chosen = [collage for _, _, collage in sorted(self._rejected[reason], reverse=True)]
            pairs = [
                (place, collage, each)
                for collage in chosen
                for place, each in enumerate(
                    each for each in collage.instances if each.dropped and each.dropped[1] == reason
                )
            ]
            pairs.sort(key=lambda pair: pair[0])
            found[reason] = [(collage, each) for _, collage, each in pairs[:SHOWN_REJECTED]]
        return found


def _keep(
    heap: list[tuple[int, int, CollageRecord]], entry: tuple[int, int, CollageRecord], most: int
) -> None:
    (heapq.heappush if len(heap) < most else heapq.heappushpop)(heap, entry)


def galleries(facts: Facts, chosen: Chosen) -> list[Gallery]:
    """Return the contact sheets. Raises DataError, PictureError."""
    output = OutputFolder.open(facts.folder)
    made = [
        _kept_sets(facts, output),
        _collages("Collages and what was taken of them", output, chosen.collages(True), "of which sets came"),
        _collages("Rejected collages", output, chosen.collages(False), "of which no set came"),
        _rejected(output, chosen),
    ]
    return [gallery for gallery in made if gallery.strips]


def _kept_sets(facts: Facts, output: OutputFolder) -> Gallery:
    places, note = ranked(facts)
    numbers = sorted(facts.sampled[place] for place, _ in places)
    sets = dict(read_sets(output, facts.markers, numbers))
    strips = [
        Strip(f"{title}: {made.subject}", _captioned(made))
        for place, title in places
        for made in (sets[facts.sampled[place]],)
    ]
    return Gallery("Kept sets", strips, note)


def ranked(facts: Facts) -> tuple[list[tuple[int, str]], str]:
    """(place among the sampled sets, title) of those that are shown, and how they were chosen."""
    if not facts.columns:
        few = range(min(3 * SHOWN_SETS, len(facts.sampled)))
        return [(place, f"set {facts.sampled[place]}") for place in few], "The first of those that were read."
    column = facts.columns[-1]
    scores = np.nan_to_num(facts.features.inside(column))
    order = np.argsort(scores, kind="stable").tolist()
    middle = max(0, len(order) // 2 - SHOWN_SETS // 2)
    places: dict[int, str] = {}
    for what, part in (
        ("least alike", order[:SHOWN_SETS]),
        ("middle", order[middle : middle + SHOWN_SETS]),
        ("most alike", order[-SHOWN_SETS:]),
    ):
        for place in part:
            places.setdefault(place, f"{what}, {column} {scores[place]:.3f}")
    return list(
        places.items()
    ), f"{len(order)} sets ordered by {column} inside the set, the least alike first."


def _captioned(made: ImageSet) -> list[tuple[Image.Image, str]]:
    styles = [step_of(picture, Stage.STYLE).get("style") for picture in made.info["pictures"]]
    texts = [
        f"{caption} ({style})" if style else caption
        for caption, style in zip(made.captions, styles, strict=True)
    ]
    return list(zip(made.pictures, texts, strict=True))


def _collages(title: str, output: OutputFolder, collages: Sequence[CollageRecord], which: str) -> Gallery:
    shown = []
    for collage in collages:
        picture = output.collage_picture(collage.record)
        if picture is not None:
            shown.append((with_boxes(picture, collage), f"{collage.name}: {_dropped_in(collage)}"))
    note = (
        f"Some of the collages {which}. Solid boxes: instances in a set, a color for each set; dashed red: "
        "rejected."
    )
    return Gallery(title, [Strip("", shown)] if shown else [], note, side=COLLAGE_SIDE)


def _dropped_in(collage: CollageRecord) -> str:
    dropped = [each.dropped[1] for each in collage.instances if each.dropped]
    counts = [f"{dropped.count(reason)} {_words(reason)}" for reason in dict.fromkeys(dropped)]
    kept = sum(each.set is not None for each in collage.instances)
    return ", ".join([f"{kept} in sets", *counts])


def with_boxes(picture: Image.Image, collage: CollageRecord) -> Image.Image:
    """Return the collage with a box around every instance whose place is known."""
    scale = COLLAGE_SIDE / max(picture.size)
    shown = picture.resize((round(picture.width * scale), round(picture.height * scale)))
    draw = ImageDraw.Draw(shown)
    colors = {
        key: KEPT[number % len(KEPT)]
        for number, key in enumerate(
            dict.fromkeys((each.group, each.set) for each in collage.instances if each.set is not None)
        )
    }
    for each in collage.instances:
        left, top, right, bottom = (round(edge * scale) for edge in each.box)
        if each.set is not None:
            draw.rectangle((left, top, right, bottom), outline=colors[each.group, each.set], width=3)
            continue
        for x in range(left, right, 10):
            for y in (top, bottom):
                draw.line((x, y, min(x + 5, right), y), DROPPED, 3)
        for y in range(top, bottom, 10):
            for x in (left, right):
                draw.line((x, y, x, min(y + 5, bottom)), DROPPED, 3)
    return shown


def _rejected(output: OutputFolder, chosen: Chosen) -> Gallery:
    strips = []
    for reason, instances in chosen.rejected().items():
        crops = []
        for collage, each in instances:
            picture = output.collage_picture(collage.record)
            if picture is not None:
                crops.append((surroundings(picture, each.box), collage.name))
        strips.append(Strip(Reason[reason.upper()].value, crops))
    return Gallery(
        "Rejected instances by reason", strips, "Cut out of the collages whose pictures were kept."
    )


def surroundings(picture: Image.Image, box: Box) -> Image.Image:
    """Return a square around the box, with some of what is beside it, inside the picture; so that crops line
    up.
    """
    left, top, right, bottom = box
    longest = max(right - left, bottom - top)
    side = min(*picture.size, longest + 2 * max(4, longest // 6))
    x, y = (
        min(max(0, (low + high - side) // 2), end - side)
        for low, high, end in ((left, right, picture.width), (top, bottom, picture.height))
    )
    return picture.crop((x, y, x + side, y + side))


def _words(reason: str) -> str:
    return reason.replace("_", " ")
