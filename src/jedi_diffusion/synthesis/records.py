"""The records that travel from stage to stage, and the reasons why some do not arrive.

Letters: K instances in a collage; W, H a picture's width and height in pixels.

Records are frozen; a stage makes new ones. Each carries its history, one plain JSON entry a stage, which
ends as the provenance of the finished set.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, TypeVar

from PIL import Image

from jedi_diffusion.synthesis.names import ObjectName
from jedi_diffusion.vision.detection import Box, Mask

Record = TypeVar("Record")


class Stage(StrEnum):
    """The eight stages of Algorithm 1, as far as training needs them."""

    PROMPT = "prompt"
    COLLAGE = "collage"
    INSTANCE = "instance"
    GROUP = "group"
    SCENE = "scene"
    STYLE = "style"
    CAPTION = "caption"
    SET = "set"


class Reason(StrEnum):
    """Why a record was rejected."""

    MODEL_FAILED = "the model gave no answer"
    UNREADABLE_ANSWER = "the language model's answer has no prompts in it"
    MISSING_PROMPT = "the language model wrote fewer prompts than were asked for"
    DUPLICATE_PROMPT = "the language model wrote this prompt before"
    LONG_PROMPT = "the prompt is too long"
    NAME_MISSING = "the prompt does not name the object"
    NOTHING_FOUND = "no instance was detected"
    LOW_SCORE = "the detector is not sure"
    EMPTY_MASK = "nothing was segmented"
    TOO_SMALL = "too small"
    TOO_LARGE = "too large"
    CUT_BY_BORDER = "cut off by the border"
    CUT_BY_SEAM = "cut off by a seam inside the collage"
    OVERLAPPING = "overlaps a surer instance"
    ALONE = "no other instance shows the same subject"
    EMPTY_CAPTION = "the caption is empty"
    TOO_FEW_PICTURES = "too few pictures of the subject are left"
    TOO_MANY_PICTURES = "no set has room for this picture"


@dataclass(frozen=True)
class Step:
    """What one stage did to a record: plain JSON values."""

    stage: Stage
    details: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """{"stage": name, ...details}."""
        return {"stage": self.stage.value, **self.details}


History = tuple[Step, ...]


@dataclass(frozen=True)
class Key:
    """Which record: the object, the numbers of collage, group and instance, None where not yet known."""

    item: ObjectName
    collage: int
    group: int | None = None
    instance: int | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values; parts that are not there yet are left out."""
        parts = {"collage": self.collage, "group": self.group, "instance": self.instance}
        known = {name: number for name, number in parts.items() if number is not None}
        return {"object": self.item.name, "category": self.item.category, **known}


@dataclass(frozen=True)
class Rejection:
    """A record that a stage did not pass on, and why; `detail` gives the numbers or words.

    box: of an instance, in pixels of its collage: left, top, right, bottom. affinities: of an instance that
    was compared with the others of its collage, by their numbers.
    """

    key: Key
    stage: Stage
    reason: Reason
    detail: str = ""
    box: tuple[int, int, int, int] | None = None
    affinities: tuple[tuple[str, float], ...] | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values; `box` and `affinities` only where there are any."""
        told = {"stage": self.stage.value, "reason": self.reason.name.lower(), "detail": self.detail}
        place = {"box": list(self.box)} if self.box else {}
        compared = {} if self.affinities is None else {"affinities": dict(self.affinities)}
        return {**self.key.as_json(), **told, **place, **compared}


@dataclass(frozen=True)
class Outcome(Generic[Record]):
    """What a stage made, in the order of its input, and what it rejected."""

    kept: tuple[Record, ...]
    rejected: tuple[Rejection, ...] = ()

    @staticmethod
    def of(results: Iterable[Record | Rejection]) -> Outcome[Record]:
        """Results told apart."""
        kept: list[Record] = []
        rejected: list[Rejection] = []
        for result in results:
            if isinstance(result, Rejection):
                rejected.append(result)
            else:
                kept.append(result)
        return Outcome(tuple(kept), tuple(rejected))


@dataclass(frozen=True)
class CollagePlan:
    """The text of a collage that is to be made."""

    key: Key
    prompt: str
    history: History


@dataclass(frozen=True, eq=False)
class Collage:
    """Pictures of one subject side by side in one RGB picture."""

    key: Key
    picture: Image.Image
    history: History


@dataclass(frozen=True, eq=False)
class Instance:
    """One thing cut out of a collage.

    cutout: RGB, what is inside `box`. mask: (H, W) of the cut-out, true on the thing. box: whole pixels of
    the collage. score: the detector's, in [0, 1].
    """

    key: Key
    cutout: Image.Image
    mask: Mask
    box: Box
    score: float
    history: History


@dataclass(frozen=True)
class Group:
    """Instances that show the same subject: a connected component of the affinity graph."""

    key: Key
    instances: tuple[Instance, ...]


@dataclass(frozen=True, eq=False)
class Scene:
    """A picture of the subject in a scene.

    picture: RGB and square. mask: 8-bit picture of the same size, 255 on the subject. caption: empty until
    the caption stage.
    """

    key: Key
    picture: Image.Image
    mask: Image.Image
    history: History
    caption: str = ""
