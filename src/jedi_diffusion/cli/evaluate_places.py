"""`jedi evaluate places`: trains the classifier that says which place a picture shows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from jedi_diffusion import devices
from jedi_diffusion.cli.data_options import open_place
from jedi_diffusion.errors import DataError, UsageError
from jedi_diffusion.files import make_folder
from jedi_diffusion.options import check_options

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from PIL import Image

    from jedi_diffusion.vision.lite import LiteEncoder
    from jedi_diffusion.vision.places import Examples, PlaceClassifier

CHUNK = 64  # pictures read and encoded at once
HELD_OUT = 5  # one set in so many is for testing


@dataclass(frozen=True)
class PlacesOptions:
    """Train a place classifier for `jedi evaluate score --places` and `jedi photos score --places`.

    Learns from captioned pictures: the place of a picture is the longest of the listed ones that its caption
    names; pictures without one are left out. One set in five is held out to measure the accuracy.
    """

    data: tyro.conf.Positional[str]
    """"toybox" (its scenes, rendered), shards, or a folder of pictures with captions."""
    out: str
    """File for the classifier: .safetensors."""
    places: str | None = None
    """A file with one place a line, as captions name it: "on the beach". Not needed for the toybox."""
    pictures: int = 4000
    """Pictures to learn from and to test with, at most."""
    encoder: Literal["lite2", "lite0"] = "lite2"
    """EfficientNet-Lite2 or Lite0."""
    seed: int = 0
    """Which sets are held out; for the toybox, which subjects are rendered."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute."""


def run(arguments: list[str]) -> None:
    """Read, encode, fit, measure, write. Raises JeDiError."""
    given = tyro.cli(PlacesOptions, args=arguments, prog="jedi evaluate places")
    check(given)
    make_folder(Path(given.out).parent)
    from jedi_diffusion.vision.lite import LiteEncoder

    encoder = LiteEncoder(given.encoder, str(devices.pick_device(given.device)))
    fitted = train_on_toybox(given, encoder) if given.data == "toybox" else train_on_sets(given, encoder)
    fitted.save(given.out)
    held_out = fitted.record["held_out"]
    print(
        f"{len(fitted.places)} places, learnt from {fitted.record['trained_on']} pictures. On "
        f"{held_out['pictures']} held-out pictures {held_out['accuracy']:.3f} are told right, and the right "
        f"place has a probability of {held_out['probability']:.3f}."
    )
    print(f"Classifier: {given.out}")


def check(given: PlacesOptions) -> None:
    """Raise UsageError for options that cannot be right."""
    check_options(given, {"pictures": (10, 1_000_000), "seed": (0, 2**31)})
    if Path(given.out).suffix != ".safetensors":
        raise UsageError(f"--out is {given.out}, but the classifier is a .safetensors file.")
    if (given.places is None) != (given.data == "toybox"):
        raise UsageError("--places lists the places of DATA, one a line; the toybox alone has its own.")


def train_on_toybox(given: PlacesOptions, encoder: LiteEncoder) -> PlaceClassifier:
    """Learn from subjects of the scorer's split, half of them changed a little; test with held-out ones."""
    from jedi_diffusion.vision.places import train_places
    from jedi_toybox import world
    from jedi_toybox.places import place_pictures

    each = max(1, given.pictures // (HELD_OUT * len(world.SCENES)))
    device = str(encoder.device)
    train = place_pictures("scorer", each * (HELD_OUT - 1), 128, given.seed, device, varied=True)
    test = place_pictures("held_out", each, 128, given.seed, device)
    learnt, tested = (_encoded(encoder, some.pictures, some.labels) for some in (train, test))
    return train_places(world.SCENES, given.encoder, learnt, tested, _record(given))


def train_on_sets(given: PlacesOptions, encoder: LiteEncoder) -> PlaceClassifier:
    """Learn from the sets at a place, in random order, until there are enough pictures."""
    import numpy as np

    from jedi_diffusion.randomness import Permutation
    from jedi_diffusion.vision.places import Examples, place_in, train_places

    places = read_places(given.places or "")
    found = open_place(given.data, "auto")
    order, count = Permutation(len(found), given.seed), 0
    parts: dict[bool, list[Examples]] = {False: [], True: []}
    for number in range(len(found)):
        item = order(number)
        read = found.read(item, found.size(item), np.random.default_rng([given.seed, item]))
        labels = [place_in(caption, places) for caption in read.captions]
        kept = [label for label in labels if label is not None]
        pictures = [each for each, label in zip(read.pictures, labels, strict=True) if label is not None]
        if not kept:
            continue
        parts[number % HELD_OUT == 0].append(_encoded(encoder, pictures, kept))
        count += len(kept)
        if count >= given.pictures:
            break
    if not count:
        raise DataError(f"No caption of {given.data} names a place of {given.places}.")
    if not (parts[False] and parts[True]):
        raise DataError(f"{given.data} has too few sets with a known place: some must be held out.")
    learn, test = (Examples(*map(np.concatenate, zip(*parts[held], strict=True))) for held in (False, True))
    return train_places(places, given.encoder, learn, test, _record(given))


def read_places(path: str) -> list[str]:
    """Return the lines of a file. Raises UsageError."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--places {path} cannot be read: {error}.") from error
    places = list(dict.fromkeys(" ".join(line.split()) for line in lines if line.strip()))
    if len(places) < 2:
        raise UsageError(f"--places {path} lists {len(places)} places; at least 2 are needed, one a line.")
    return places


def _encoded(encoder: LiteEncoder, pictures: Sequence[Image.Image], labels: Sequence[int]) -> Examples:
    import numpy as np
    from tqdm import tqdm

    from jedi_diffusion.vision.places import Examples

    starts: Iterable[int] = range(0, len(pictures), CHUNK)
    if len(pictures) > CHUNK:
        starts = tqdm(starts, desc="encoding", leave=False)
    rows = np.concatenate([encoder.raw(pictures[start : start + CHUNK]) for start in starts])
    return Examples(rows, np.array(labels, np.int64))


def _record(given: PlacesOptions) -> dict[str, object]:
    return {"data": Path(given.data).name, "pictures": given.pictures, "seed": given.seed}
