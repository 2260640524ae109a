"""The procedural world: subjects, pictures of them, and sets, each a pure function of a seed.

A caption names class, style, attribute and scene, never the subject's own colours or patterns: those can
come from the references only. Letters: I pictures; H, W a picture's height and width.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from jedi_diffusion.errors import UsageError
from jedi_diffusion.sets import ImageSet
from jedi_toybox import clutter, renderer, scenes
from jedi_toybox.accessories import ATTRIBUTES, apply_attribute
from jedi_toybox.camera import Camera, outline, random_camera
from jedi_toybox.packing import Staged, pack
from jedi_toybox.parts import Part
from jedi_toybox.scenes import SCENES
from jedi_toybox.styles import STYLES as STYLE_FUNCTIONS
from jedi_toybox.subjects import CLASSES, HELD_OUT_CLASSES, THING_NOUNS, build_subject

__all__ = [
    "ATTRIBUTES",
    "CLASSES",
    "HELD_OUT_CLASSES",
    "SCENES",
    "SPLITS",
    "STYLES",
    "THING_NOUNS",
    "PictureSpec",
    "Rendered",
    "Split",
    "Subject",
    "render",
    "sample_picture",
    "sample_set",
    "sample_subject",
    "vocabulary",
]

Split = Literal["train", "held_out", "held_out_classes", "scorer"]
SPLITS: tuple[Split, ...] = get_args(Split)
STYLES: tuple[str, ...] = tuple(STYLE_FUNCTIONS)

THING_SHARE = 0.4  # of the subjects that have no class
STYLED_SHARE = 0.25  # of the pictures with a style
ATTRIBUTE_SHARE = 0.25  # of the pictures with an attribute
_SCENE_TURN = np.radians(25)  # the scene turns this far against the camera, either way


@dataclass(frozen=True)
class Subject:
    """An individual of a class (`noun`): its parts are the same in every picture."""

    noun: str
    seed: int
    split: Split

    @cached_property
    def parts(self) -> list[Part]:
        return build_subject(self.noun, _rng("parts", self.split, self.noun, self.seed))

    @property
    def phrase(self) -> str:
        """The noun with its article: "a robot", "an owl"."""
        return f"{'an' if self.noun[0] in 'aeiou' else 'a'} {self.noun}"


@dataclass(frozen=True)
class PictureSpec:
    """A picture that can be rendered. `style` and `attribute` are "" where it has none; `azimuth` is the
    camera's in radians, None for a random one. Pictures of a subject with one `view` number share a camera,
    but for what an attribute needs; None: a camera of its own.
    """

    subject: Subject
    seed: int
    scene: str
    style: str
    attribute: str
    azimuth: float | None = None
    view: int | None = None

    @property
    def caption(self) -> str:
        return " ".join(filter(None, (self.style, self.subject.phrase, self.attribute, self.scene)))

    @property
    def camera(self) -> Camera:
        return self.staged.camera

    @cached_property
    def staged(self) -> Staged:
        """All that is seen in the picture."""
        individual = (self.subject.split, self.subject.seed)
        rng = _rng("picture", *individual, self.seed)
        attribute_rng, scene_rng, clutter_rng = rng.spawn(3)
        parts = self.subject.parts
        if self.attribute:
            parts = apply_attribute(parts, self.attribute, attribute_rng)
        points = outline(parts)
        camera_rng = rng if self.view is None else _rng("view", *individual, self.view)
        camera = random_camera(points, camera_rng, self.azimuth)
        turn = camera.azimuth + rng.uniform(-_SCENE_TURN, _SCENE_TURN)
        around = clutter.clutter(self.scene, clutter_rng)
        return Staged(parts, around, camera, points, scenes.pack_scene(self.scene, scene_rng), turn)


class Rendered(NamedTuple):
    """`pictures` uint8 (I, 3, H, W); `masks` bool (I, H, W): the subject's pixels, accessories included."""

    pictures: Tensor
    masks: Tensor


def sample_subject(seed: int, split: Split = "train", noun: str | None = None) -> Subject:
    """Return a random subject; of one class if `noun` is given.

    Splits share no subject: "held_out" and "scorer" (which trains the scorer's encoders) hold other
    individuals of the same classes as "train", "held_out_classes" other classes. Raises UsageError for an
    unknown split, or a noun that the split does not hold.
    """
    if split not in SPLITS:
        raise UsageError(f"Unknown split {split!r}; choose one of {', '.join(SPLITS)}.")
    nouns = HELD_OUT_CLASSES if split == "held_out_classes" else (*CLASSES, *THING_NOUNS)
    if noun is None:
        rng = _rng("subject", split, seed)
        is_thing = split != "held_out_classes" and rng.random() < THING_SHARE
        group = THING_NOUNS if is_thing else HELD_OUT_CLASSES if split == "held_out_classes" else CLASSES
        noun = group[int(rng.integers(len(group)))]
    elif noun not in nouns:
        raise UsageError(f"The split {split!r} has no class {noun!r}; choose one of {', '.join(nouns)}.")
    return Subject(noun, seed, split)


def sample_picture(
    subject: Subject,
    seed: int,
    scene: str | None = None,
    style: str | None = None,
    attribute: str | None = None,
    azimuth: float | None = None,
    view: int | None = None,
) -> PictureSpec:
    """Return a random picture of the subject. What is None is drawn; "" for `style` or `attribute` means
    none; `azimuth` is the camera's in radians, 0 in front; pictures with one `view` number share a camera.

    Raises UsageError for a scene, style or attribute that the world does not know.
    """
    rng = _rng("choice", subject.split, subject.seed, seed)
    shares, draws = rng.random(2), rng.random(3)
    scene = _pick(SCENES, draws[0]) if scene is None else _known("scene", scene, SCENES)
    if style is None:
        style = _pick(STYLES, draws[1]) if shares[0] < STYLED_SHARE else ""
    if attribute is None:
        attribute = _pick(ATTRIBUTES, draws[2]) if shares[1] < ATTRIBUTE_SHARE else ""
    style, attribute = (
        _known("style", style, ("", *STYLES)),
        _known("attribute", attribute, ("", *ATTRIBUTES)),
    )
    return PictureSpec(subject, seed, scene, style, attribute, azimuth, view)


def render(
    specs: Sequence[PictureSpec],
    size: int = 128,
    supersample: int = 2,
    device: torch.device | str = "cpu",
    compiled: bool = False,
) -> Rendered:
    """Render the pictures at size x size, each pixel the mean of supersample x supersample rays.

    A picture is the same alone and among others. `compiled` is for bulk work: the first call of a size takes
    a minute or two, and pictures may differ from the others by rounding. The result is on `device`.
    """
    if not specs or size < 8 or supersample < 1:
        raise UsageError(
            f"Cannot render {len(specs)} pictures of size {size} with {supersample} x {supersample} rays."
        )
    drawn = []
    for start in range(0, len(specs), renderer.CHUNK):
        chunk = specs[start : start + renderer.CHUNK]
        staged = [spec.staged for spec in chunk]
        if compiled:
            staged += staged[-1:] * (renderer.CHUNK - len(chunk))
        packed = pack(staged).to(device)
        raw = renderer.draw(packed, size, supersample, compiled)
        styled = _with_styles(raw.pictures[: len(chunk)], raw.edges[: len(chunk)], chunk)
        drawn.append(((styled * 255).round().to(torch.uint8), raw.masks[: len(chunk)]))
    pictures, masks = zip(*drawn, strict=True)
    return Rendered(torch.cat(pictures), torch.cat(masks))


def sample_set(
    seed: int,
    split: Split = "train",
    size: int = 4,
    resolution: int = 128,
    supersample: int = 2,
) -> ImageSet:
    """Return a random subject in `size` random pictures, with captions and masks."""
    subject = sample_subject(seed, split)
    specs = [sample_picture(subject, number) for number in range(size)]
    out = render(specs, resolution, supersample)
    info: dict[str, Any] = {
        "name": subject.phrase,
        "noun": subject.noun,
        "seed": seed,
        "split": split,
        "pictures": [],
    }
    for spec in specs:
        place = {"position": spec.camera.position, "tangent": spec.camera.tangent, "shift": spec.camera.shift}
        row = {"seed": spec.seed, "scene": spec.scene, "style": spec.style, "attribute": spec.attribute}
        info["pictures"].append({**row, "camera": place})
    return ImageSet(
        pictures=tuple(Image.fromarray(p.permute(1, 2, 0).contiguous().numpy()) for p in out.pictures),
        captions=tuple(spec.caption for spec in specs),
        masks=tuple(Image.fromarray((mask.to(torch.uint8) * 255).numpy()) for mask in out.masks),
        info=info,
    )


def vocabulary() -> tuple[str, ...]:
    """Every word that a caption can hold, sorted."""
    phrases = (*CLASSES, *HELD_OUT_CLASSES, *THING_NOUNS, *SCENES, *STYLES, *ATTRIBUTES, "a an")
    return tuple(sorted({word for phrase in phrases for word in phrase.split()}))


def _with_styles(pictures: Tensor, edges: Tensor, specs: Sequence[PictureSpec]) -> Tensor:
    """Every picture in its style; pictures of one style go through it together."""
    pictures = pictures.clone()
    for style in sorted({spec.style for spec in specs} - {""}):
        rows = [row for row, spec in enumerate(specs) if spec.style == style]
        keys = [("style", specs[row].subject.split, specs[row].subject.seed, specs[row].seed) for row in rows]
        seeds = torch.tensor([_digest(key, 3) for key in keys], dtype=torch.int32, device=pictures.device)
        pictures[rows] = STYLE_FUNCTIONS[style](pictures[rows], edges[rows], seeds).clamp(0, 1)
    return pictures


def _rng(*key: str | int) -> np.random.Generator:
    """Return a generator of its own for every key."""
    return np.random.default_rng(_digest(key, 16))


def _digest(key: tuple[str | int, ...], size: int) -> int:
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=size).digest())


def _pick(options: tuple[str, ...], draw: float) -> str:
    return options[int(draw * len(options))]


def _known(what: str, name: str, options: tuple[str, ...]) -> str:
    if name not in options:
        raise UsageError(
            f"The toybox knows no {what} {name!r}; choose one of {', '.join(filter(None, options))}."
        )
    return name
