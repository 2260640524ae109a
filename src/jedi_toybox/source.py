"""The toybox as a source of training sets."""

import numpy as np

from jedi_diffusion.data.source import RenderedSets
from jedi_toybox import world

PLAIN_SCENES = ("in front of a blue wall", "on a wooden floor", "on a tiled floor", "on a red carpet")
"""Scenes of a studio, for views of a subject."""


class ToyboxSource:
    """Training sets of the toybox, numbered. `seed` gives other subjects and pictures of the same world;
    `supersample` squared rays are averaged for a pixel. `alike` is the share of subjects that all pictures
    show by one camera, all but the last also in no style and with no attribute: a reference tells there all
    of the subject that its target shows, whose view no caption tells, and lies at the same place.
    `compiled`: many times as fast, after a minute or two at the first call of a size. `split`: whose
    subjects.
    """

    def __init__(
        self,
        seed: int = 0,
        supersample: int = 1,
        alike: float = 0.0,
        compiled: bool = True,
        split: world.Split = "train",
    ) -> None:
        self.seed, self.supersample, self.alike, self.compiled = seed, supersample, alike, compiled
        self.split: world.Split = split

    @property
    def words(self) -> tuple[str, ...]:
        """The words of training captions; names of the held-out classes are not among them."""
        unseen = {word for noun in world.HELD_OUT_CLASSES for word in noun.split()}
        phrases = (*world.CLASSES, *world.THING_NOUNS, *world.SCENES, *world.STYLES, *world.ATTRIBUTES)
        seen = {word for phrase in phrases for word in phrase.split()}
        return tuple(word for word in world.vocabulary() if word in seen or word not in unseen)

    def sets(self, first: int, count: int, pictures: int, size: int, device: str) -> RenderedSets:
        """Return sets number `first` and up."""
        numbers = range(first, first + count)
        subjects = [world.sample_subject((self.seed << 40) + number, self.split) for number in numbers]
        specs = [spec for subject in subjects for spec in self._pictures(subject, pictures)]
        out = world.render(specs, size, self.supersample, device, compiled=self.compiled)
        captions = [self._caption(spec) for spec in specs]
        return RenderedSets(
            pictures=out.pictures.unflatten(0, (count, pictures)),
            masks=out.masks.unflatten(0, (count, pictures)),
            captions=[captions[start : start + pictures] for start in range(0, len(captions), pictures)],
            names=[subject.phrase for subject in subjects],
        )

    def _pictures(self, subject: world.Subject, count: int) -> list[world.PictureSpec]:
        rng = np.random.default_rng([self.seed, subject.seed])
        if rng.random() >= self.alike:
            return [world.sample_picture(subject, number) for number in range(count)]
        plain = [
            world.sample_picture(subject, number, style="", attribute="", view=0)
            for number in range(count - 1)
        ]
        return [*plain, world.sample_picture(subject, count - 1, view=0)]

    def _caption(self, spec: world.PictureSpec) -> str:
        return spec.caption


class ToyboxViews(ToyboxSource):
    """Subjects rendered from all sides in one plain scene, all pictures with one caption, the subject's
    alone: as renders of Objaverse are trained on (section 4).
    """

    def _pictures(self, subject: world.Subject, count: int) -> list[world.PictureSpec]:
        rng = np.random.default_rng([self.seed, subject.seed, 1])
        scene = PLAIN_SCENES[int(rng.integers(len(PLAIN_SCENES)))]
        return [
            world.sample_picture(
                subject, number, scene, style="", attribute="", azimuth=float(rng.uniform(-np.pi, np.pi))
            )
            for number in range(count)
        ]

    def _caption(self, spec: world.PictureSpec) -> str:
        return spec.subject.phrase
