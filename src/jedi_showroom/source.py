"""The showroom as a source of training sets.

Letters: S sets; N pictures in a set; H pixels of a side.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from jedi_diffusion.data.source import RenderedSets
from jedi_diffusion.sets import ImageSet
from jedi_showroom import cutouts
from jedi_showroom.composing import Composed, Look, compose, recolored
from jedi_showroom.cutouts import Cutout
from jedi_showroom.places import Place, load_places
from jedi_showroom.subjects import Split, Subject
from jedi_showroom.toybox_places import toybox_backgrounds
from jedi_showroom.views import Framing
from jedi_toybox import world

TOYBOX_SHARE = 0.4  # of the pictures whose place is a scene of the toybox
RECOLORED_SHARE = 0.5  # of the sets
PHOTO_SHARE = 0.25  # of the captions that begin with "a photo of"


@dataclass(frozen=True)
class Shot:
    """One picture to be composed; `place` is None where `phrase` is a scene of the toybox."""

    subject: Subject
    view: int
    framing: Framing
    look: Look | None
    place: Place | None
    phrase: str
    caption: str
    seed: int


@dataclass(frozen=True)
class SetPlan:
    """A subject and its pictures."""

    subject: Subject
    shots: tuple[Shot, ...]


def random_framing(cutout: Cutout, rng: np.random.Generator) -> Framing:
    """Draw a cut-out's place: its side 62% to 105% of the picture's, its middle a little off centre."""
    scale = float(rng.uniform(0.62, 1.05))
    room = max(0.0, 1 - cutouts.FILL * scale) * 0.7
    return Framing(
        scale,
        float(rng.uniform(-room, room)),
        float(rng.uniform(-room, 0.6 * room)),
        cutout.elevation,
        cutout.tangent,
    )


class ShowroomSource:
    """Training sets, numbered: a pure function of the cut-outs, `seed` and the number.

    `alike` is the share of sets whose pictures show one view at one place in the frame, so that a reference
    tells all of what its target shows. `compiled`: scenes of the toybox are drawn many times as fast, after a
    minute or two at the first call of a size.
    """

    def __init__(
        self,
        packages: Path,
        folder: Path,
        seed: int = 0,
        alike: float = 0.85,
        split: Split = "train",
        compiled: bool = True,
    ) -> None:
        self.root, self.seed, self.alike, self.compiled = folder / "cutouts", seed, alike, compiled
        on_disk = cutouts.subjects_on_disk(self.root)
        self.subjects = [subject for subject in on_disk if subject.split == split]
        self.places: list[Place] = load_places(packages, folder / "unpacked")
        self.nouns = sorted({subject.noun for subject in on_disk})

    @property
    def phrases(self) -> tuple[str, ...]:
        """The places' words, the toybox's scenes included."""
        return tuple(sorted({place.phrase for place in self.places} | set(world.SCENES)))

    @property
    def words(self) -> tuple[str, ...]:
        """Every word that a caption can hold, held-out subjects' nouns included, sorted."""
        phrases = (*self.nouns, *self.phrases, "a an photo of")
        return tuple(sorted({word for phrase in phrases for word in phrase.split()}))

    def sets(self, first: int, count: int, pictures: int, size: int, device: str) -> RenderedSets:
        """Return sets number `first` and up; the pictures are on the CPU, whatever `device` is."""
        plans = [self._plan(number, pictures) for number in range(first, first + count)]
        return self.render(plans, size, device)

    def render(self, plans: Sequence[SetPlan], size: int, device: str = "cpu") -> RenderedSets:
        """Draw planned sets, which have one number of pictures."""
        shots = [shot for plan in plans for shot in plan.shots]
        scenes = [shot for shot in shots if shot.place is None]
        asked = [(shot.phrase, shot.framing, shot.seed) for shot in scenes]
        drawn = iter(toybox_backgrounds(asked, size, device, self.compiled))
        composed = [self._compose(shot, size, next(drawn) if shot.place is None else None) for shot in shots]
        count = len(plans[0].shots)
        pixels = torch.from_numpy(np.stack([each.picture for each in composed])).permute(0, 3, 1, 2)
        masks = torch.from_numpy(np.stack([each.mask for each in composed]))
        return RenderedSets(
            pictures=pixels.contiguous().unflatten(0, (-1, count)),
            masks=masks.unflatten(0, (-1, count)),
            captions=[[shot.caption for shot in plan.shots] for plan in plans],
            names=[plan.subject.phrase for plan in plans],
        )

    def image_sets(self, first: int, count: int, pictures: int, size: int) -> list[ImageSet]:
        """Return sets as pictures with captions and masks."""
        drawn = self.sets(first, count, pictures, size, "cpu")
        return [
            ImageSet(
                pictures=tuple(Image.fromarray(each) for each in shown.permute(0, 2, 3, 1).numpy()),
                captions=tuple(captions),
                masks=tuple(Image.fromarray(each.numpy().astype(np.uint8) * 255) for each in masks),
                info={"name": name},
            )
            for shown, masks, captions, name in zip(
                drawn.pictures, drawn.masks, drawn.captions, drawn.names, strict=True
            )
        ]

    def _plan(self, number: int, pictures: int) -> SetPlan:
        rng = np.random.default_rng([self.seed, number])
        subject = self.subjects[int(rng.integers(len(self.subjects)))]
        return self.plan(subject, pictures, rng, alike=bool(rng.random() < self.alike))

    def plan(self, subject: Subject, pictures: int, rng: np.random.Generator, alike: bool) -> SetPlan:
        """Draw a set of the subject: looks, views and places."""
        look = None
        if rng.random() < RECOLORED_SHARE:
            look = Look(float(rng.uniform(-np.pi, np.pi)), float(rng.uniform(0.7, 1.3)))
        shots: list[Shot] = []
        for _ in range(pictures):
            if alike and shots:
                view, framing = shots[0].view, shots[0].framing
            else:
                view = int(rng.integers(1 << 16))
                framing = random_framing(self._cutout(subject, view), rng)
            place: Place | None = None
            if rng.random() < TOYBOX_SHARE:
                phrase = world.SCENES[int(rng.integers(len(world.SCENES)))]
            else:
                place = self.places[int(rng.integers(len(self.places)))]
                phrase = place.phrase
            photo = "a photo of " if place is not None and rng.random() < PHOTO_SHARE else ""
            caption = f"{photo}{subject.phrase} {phrase}"
            seed = int(rng.integers(1 << 40))
            shots.append(Shot(subject, view, framing, look, place, phrase, caption, seed))
        return SetPlan(subject, tuple(shots))

    def _cutout(self, subject: Subject, view: int) -> Cutout:
        return _read_cutout(self.root, subject, view)

    def _compose(self, shot: Shot, size: int, background: np.ndarray | None) -> Composed:
        rng = np.random.default_rng(shot.seed)
        cutout = self._cutout(shot.subject, shot.view)
        if shot.look is not None:
            cutout = replace(cutout, rgba=recolored(cutout.rgba, shot.look))
        if background is None:
            assert shot.place is not None
            background = shot.place.background(shot.framing, size, rng)
        return compose(cutout, shot.framing, background, rng)


@lru_cache(maxsize=4096)
def _read_cutout(root: Path, subject: Subject, view: int) -> Cutout:
    return cutouts.read(root, subject, view)
