"""The subjects of the world by noun: known classes, held-out classes, and nameless things.

A subject's colours and patterns are drawn the same way for every noun, so they cannot follow from it.
"""

from collections.abc import Callable

import numpy as np

from jedi_diffusion.errors import UsageError
from jedi_toybox.animals import ANIMALS
from jedi_toybox.builder import Builder
from jedi_toybox.creatures import CREATURES
from jedi_toybox.held_out import HELD_OUT
from jedi_toybox.household import HOUSEHOLD
from jedi_toybox.objects import OBJECTS
from jedi_toybox.parts import Part
from jedi_toybox.things import THINGS
from jedi_toybox.vehicles import VEHICLES

_KNOWN: dict[str, Callable[[Builder], None]] = {**ANIMALS, **CREATURES, **OBJECTS, **HOUSEHOLD, **VEHICLES}
CLASSES: tuple[str, ...] = tuple(sorted(_KNOWN))
HELD_OUT_CLASSES: tuple[str, ...] = tuple(sorted(HELD_OUT))
THING_NOUNS: tuple[str, ...] = ("thing", "object", "toy")


def build_subject(noun: str, rng: np.random.Generator) -> list[Part]:
    """Return a random subject: parts standing on y = 0, centred, longest extent 1. A pure function of `rng`'s
    state.

    Raises UsageError for a noun that is in none of CLASSES, HELD_OUT_CLASSES and THING_NOUNS.
    """
    if noun in THING_NOUNS:
        builder = Builder(rng, noisy=True)
        THINGS[int(builder.random() * len(THINGS))](builder)
        return builder.finish()
    build = _KNOWN.get(noun) or HELD_OUT.get(noun)
    if build is None:
        raise UsageError(f"The toybox knows no class {noun!r}; choose one of {', '.join(CLASSES)}.")
    builder = Builder(rng)
    build(builder)
    return builder.finish()
