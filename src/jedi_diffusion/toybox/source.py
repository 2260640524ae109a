"""The toybox as a source of training sets."""

from jedi_diffusion.data.source import RenderedSets
from jedi_diffusion.toybox import world


class ToyboxSource:
    """Training sets of the toybox, numbered. `seed` gives other subjects and pictures of the same world;
    `supersample` squared rays are averaged for a pixel.
    """

    def __init__(self, seed: int = 0, supersample: int = 1) -> None:
        self.seed, self.supersample = seed, supersample

    @property
    def words(self) -> tuple[str, ...]:
        """The words of training captions; names of the held-out classes are not among them."""
        unseen = {word for noun in world.HELD_OUT_CLASSES for word in noun.split()}
        phrases = (*world.CLASSES, *world.THING_NOUNS, *world.SCENES, *world.STYLES, *world.ATTRIBUTES)
        seen = {word for phrase in phrases for word in phrase.split()}
        return tuple(word for word in world.vocabulary() if word in seen or word not in unseen)

    def sets(self, first: int, count: int, pictures: int, size: int, device: str) -> RenderedSets:
        """Sets number `first` and up; compiled, so that the first call of a size takes a minute or two."""
        numbers = range(first, first + count)
        subjects = [world.sample_subject((self.seed << 40) + number) for number in numbers]
        specs = [world.sample_picture(subject, number) for subject in subjects for number in range(pictures)]
        out = world.render(specs, size, self.supersample, device, compiled=True)
        captions = [spec.caption for spec in specs]
        return RenderedSets(
            pictures=out.pictures.unflatten(0, (count, pictures)),
            masks=out.masks.unflatten(0, (count, pictures)),
            captions=[captions[start : start + pictures] for start in range(0, len(captions), pictures)],
            names=[subject.phrase for subject in subjects],
        )
