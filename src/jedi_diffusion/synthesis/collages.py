"""Stages 2 to 4: collages, the instances in them, and which instances are one subject (Algorithm 1).

Letters: K instances; D numbers of an embedding; W, H a picture's width and height in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from jedi_diffusion.errors import ModelError
from jedi_diffusion.pictures import WHITE, fit_square
from jedi_diffusion.randomness import derive_seed
from jedi_diffusion.synthesis.protocols import (
    TRUTH,
    ImageEmbedder,
    ImageGenerator,
    checked_masks,
    checked_pictures,
    one_each,
)
from jedi_diffusion.synthesis.records import (
    Collage,
    CollagePlan,
    Group,
    Instance,
    Key,
    Outcome,
    Reason,
    Rejection,
    Stage,
    Step,
)
from jedi_diffusion.synthesis.seams import Tile, find_tiles, seam_gap
from jedi_diffusion.synthesis.settings import StageSettings
from jedi_diffusion.vision.detection import Box, Detection, Detector, Mask, Segmenter


def make_collages(
    plans: Sequence[CollagePlan], generator: ImageGenerator, settings: StageSettings, seed: int
) -> Outcome[Collage]:
    """Stage 2: a text-to-image model draws each planned collage."""
    size = (settings.collage_size, settings.collage_size)
    seeds = [derive_seed(seed, plan.key.item.name, Stage.COLLAGE, plan.key.collage) for plan in plans]
    pictures = generator.generate([plan.prompt for plan in plans], seeds, size) if plans else []
    checked_pictures(generator, pictures, [size] * len(plans))
    return Outcome(
        tuple(
            Collage(
                plan.key,
                picture,
                (
                    *plan.history,
                    Step(
                        Stage.COLLAGE,
                        {
                            "prompt": plan.prompt,
                            "seed": picture_seed,
                            "model": generator.fingerprint,
                            **({TRUTH: picture.info[TRUTH]} if TRUTH in picture.info else {}),
                        },
                    ),
                ),
            )
            for plan, picture, picture_seed in zip(plans, pictures, seeds, strict=True)
        )
    )


@dataclass(frozen=True, eq=False)
class Found:
    """A detection and its mask (H, W), with the whole pixels that the mask spans."""

    detection: Detection
    mask: Mask
    area: int
    span: tuple[int, int, int, int]

    @property
    def place(self) -> tuple[int, int, int, int]:
        """What the mask spans, or the detection's box where the mask is empty: whole pixels."""
        box = self.detection.box
        empty = (math.floor(box.left), math.floor(box.top), math.ceil(box.right), math.ceil(box.bottom))
        return self.span if self.area else empty


def find_instances(
    collages: Sequence[Collage], detector: Detector, segmenter: Segmenter, settings: StageSettings
) -> Outcome[Instance]:
    """Stage 3: what is called by the object's name is found, segmented, filtered and cut out.

    The paper joins a detector and a segmenter (section 6). Its filters are not said; these are ours.
    """
    if not collages:
        return Outcome(())
    pictures = [collage.picture for collage in collages]
    names = [collage.key.item.name for collage in collages]
    answers = one_each(detector, detector.detect(pictures, names), len(collages))
    detections = [
        _in_order(detector, answer, picture.size) for answer, picture in zip(answers, pictures, strict=True)
    ]
    boxes = [[detection.box for detection in each] for each in detections]
    masks = one_each(segmenter, segmenter.segment(pictures, boxes), len(collages))
    model = f"{detector.fingerprint} + {segmenter.fingerprint}"
    results: list[Instance | Rejection] = []
    for collage, each, outlines in zip(collages, detections, masks, strict=True):
        checked_masks(segmenter, one_each(segmenter, outlines, len(each)), collage.picture.size)
        if not each:
            results.append(Rejection(collage.key, Stage.INSTANCE, Reason.NOTHING_FOUND))
        results += _judge(collage, each, outlines, model, settings)
    return Outcome.of(results)


def _in_order(detector: Detector, detections: Sequence[Detection], size: tuple[int, int]) -> list[Detection]:
    """Return detections, the surest first, whatever order they came in, with boxes inside the picture."""
    inside = [_clipped(detector, detection, size) for detection in detections]
    return sorted(inside, key=lambda found: (-found.score, found.box.top, found.box.left))


def _clipped(detector: Detector, detection: Detection, size: tuple[int, int]) -> Detection:
    box = detection.box
    left, right = (min(max(0.0, edge), size[0]) for edge in (box.left, box.right))
    top, bottom = (min(max(0.0, edge), size[1]) for edge in (box.top, box.bottom))
    finite = all(map(math.isfinite, (box.left, box.top, box.right, box.bottom, detection.score)))
    if not finite or left >= right or top >= bottom:
        raise ModelError(f"{detector.fingerprint} gave no box in a picture of size {size}: {detection}.")
    return Detection(Box(left, top, right, bottom), detection.score)


def _judge(
    collage: Collage,
    detections: Sequence[Detection],
    masks: Sequence[Mask],
    model: str,
    settings: StageSettings,
) -> Iterator[Instance | Rejection]:
    kept: list[Found] = []
    tiles = find_tiles(collage.picture, settings.seam)
    for number, (detection, mask) in enumerate(zip(detections, masks, strict=True)):
        key = replace(collage.key, instance=number)
        found = measure(detection, mask)
        fault = (
            instance_fault(found, settings)
            or seam_fault(found, tiles, settings)
            or overlap_fault(found, kept, settings)
        )
        if fault:
            yield Rejection(key, Stage.INSTANCE, *fault, box=found.place)
        else:
            kept.append(found)
            yield cut_out(collage, key, found, model)


def measure(detection: Detection, mask: Mask) -> Found:
    """Return area and span (left, top, right, bottom) of a mask (H, W); all 0 for an empty one."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return Found(detection, mask, 0, (0, 0, 0, 0))
    span = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    return Found(detection, mask, int(np.count_nonzero(mask)), span)


def instance_fault(found: Found, settings: StageSettings) -> tuple[Reason, str] | None:
    """Return why an instance is dropped by itself, with the numbers; None where it is good."""
    height, width = found.mask.shape
    part = found.area / (width * height)
    left, top, right, bottom = found.span
    if found.detection.score < settings.min_score:
        return Reason.LOW_SCORE, f"score {found.detection.score:.3f} below {settings.min_score}"
    if not found.area:
        return Reason.EMPTY_MASK, ""
    if part < settings.min_area:
        return Reason.TOO_SMALL, f"covers {part:.4f} of the collage, less than {settings.min_area}"
    if part > settings.max_area:
        return Reason.TOO_LARGE, f"covers {part:.4f} of the collage, more than {settings.max_area}"
    gap, margin = min(left, top, width - right, height - bottom), _margin(found, settings)
    if gap < margin:
        return Reason.CUT_BY_BORDER, f"{gap} pixels from the border, nearer than {margin}"
    return None


def _margin(found: Found, settings: StageSettings) -> int:
    return max(1, round(settings.border * max(found.mask.shape)))


def seam_fault(found: Found, tiles: Sequence[Tile], settings: StageSettings) -> tuple[Reason, str] | None:
    """Return whether an instance is at, or reaches over, an edge of the tile that it lies in."""
    height, width = found.mask.shape
    gap, margin = seam_gap(found.span, tiles, (width, height)), _margin(found, settings)
    if gap is not None and gap < margin:
        return Reason.CUT_BY_SEAM, f"{gap} pixels from a seam, nearer than {margin}"
    return None


def overlap_fault(found: Found, kept: Sequence[Found], settings: StageSettings) -> tuple[Reason, str] | None:
    """Return whether too much of the smaller of two instances is shared with one that was kept before."""
    for other in kept:
        part = shared_part(found, other)
        if part > settings.max_overlap:
            return Reason.OVERLAPPING, f"shares {part:.3f}, more than {settings.max_overlap}"
    return None


def shared_part(one: Found, other: Found) -> float:
    """Return intersection over the smaller of two masks' areas, in [0, 1]."""
    left, top = (max(one.span[side], other.span[side]) for side in (0, 1))
    right, bottom = (min(one.span[side], other.span[side]) for side in (2, 3))
    if left >= right or top >= bottom:
        return 0.0
    window = np.s_[top:bottom, left:right]
    return int(np.count_nonzero(one.mask[window] & other.mask[window])) / min(one.area, other.area)


def cut_out(collage: Collage, key: Key, found: Found, model: str) -> Instance:
    """Return the part of a collage that a mask spans, with that part of the mask."""
    left, top, right, bottom = found.span
    score = float(found.detection.score)
    step = Step(Stage.INSTANCE, {"box": list(found.span), "score": score, "model": model})
    return Instance(
        key,
        collage.picture.crop(found.span),
        found.mask[top:bottom, left:right].copy(),
        Box(left, top, right, bottom),
        score,
        (*collage.history, step),
    )


def group_instances(
    instances: Sequence[Instance], embedder: ImageEmbedder, settings: StageSettings
) -> Outcome[Group]:
    """Stage 4: connected components of the graph of instances whose affinity is above the threshold.

    Instances of one collage must stand together. Components of one are rejected.
    """
    if not instances:
        return Outcome(())
    embeddings = embedder.embed([on_white(instance) for instance in instances])
    one_each(embedder, embeddings, len(instances))
    results: list[Group | Rejection] = []
    first = 0
    for _, members in groupby(instances, key=lambda instance: (instance.key.item, instance.key.collage)):
        together = list(members)
        matrix = affinities(embeddings[first : first + len(together)], embedder.fingerprint)
        first += len(together)
        results += _components(together, matrix, embedder.fingerprint, settings.affinity)
    return Outcome.of(results)


def _components(
    instances: Sequence[Instance], matrix: NDArray[np.float64], model: str, threshold: float
) -> Iterator[Group | Rejection]:
    number = 0
    for component in connected_components(matrix > threshold):
        if len(component) == 1:
            others = np.delete(matrix[component[0]], component[0])
            detail = f"largest affinity {others.max():.4f}, not above {threshold}" if len(others) else ""
            alone = instances[component[0]]
            box = alone.box
            place = (int(box.left), int(box.top), int(box.right), int(box.bottom))
            compared = tuple(_near(instances, matrix, component[0]).items())
            yield Rejection(alone.key, Stage.GROUP, Reason.ALONE, detail, place, compared)
            continue
        key = replace(instances[component[0]].key, group=number, instance=None)
        members = []
        for index in component:
            instance = instances[index]
            near = _near(instances, matrix, index)
            step = Step(Stage.GROUP, {"affinities": near, "threshold": threshold, "model": model})
            own = replace(instance.key, group=number)
            members.append(replace(instance, key=own, history=(*instance.history, step)))
        yield Group(key, tuple(members))
        number += 1


def _near(instances: Sequence[Instance], matrix: NDArray[np.float64], index: int) -> dict[str, float]:
    """Return an instance's affinities to all others of its collage: a report tries other thresholds."""
    return {
        str(other.key.instance): round(float(matrix[index, number]), 4)
        for number, other in enumerate(instances)
        if number != index
    }


def on_white(instance: Instance) -> Image.Image:
    """Return the instance alone, in the middle of a white square as large as its longer side."""
    alone = Image.new("RGB", instance.cutout.size, WHITE)
    alone.paste(instance.cutout, mask=Image.fromarray(instance.mask))
    return fit_square(alone, max(alone.size), "pad")


def affinities(embeddings: NDArray[np.floating], model: str) -> NDArray[np.float64]:
    """(K, D) -> (K, K), cosine similarities: A of Algorithm 1, line 13. Raises ModelError naming `model`."""
    vectors = np.asarray(embeddings, dtype=np.float64)
    if vectors.ndim != 2 or not np.isfinite(vectors).all() or not np.linalg.norm(vectors, axis=1).all():
        raise ModelError(f"{model} gave embeddings that are not rows of finite numbers of a length above 0.")
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines: NDArray[np.float64] = unit @ unit.T
    return cosines


def connected_components(adjacent: NDArray[np.bool_]) -> list[tuple[int, ...]]:
    """Return components of a symmetric (K, K) matrix (line 15), each ascending, ordered by their first
    members.
    """
    waiting = set(range(len(adjacent)))
    components = []
    while waiting:
        frontier = [min(waiting)]
        component = set(frontier)
        while frontier:
            near = np.flatnonzero(adjacent[frontier.pop()])
            new = {int(index) for index in near} - component
            component |= new
            frontier.extend(new)
        waiting -= component
        components.append(tuple(sorted(component)))
    return components
