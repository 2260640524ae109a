"""The scorer's encoders behind the interface of `evaluation.encoders`: no download, toybox pictures only.

Letters: B pictures or texts; D identity features; F options of all fields together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from jedi_diffusion.errors import UsageError
from jedi_diffusion.pictures import fit_square
from jedi_diffusion.vision.places import place_rows
from jedi_toybox import world
from jedi_toybox.encoders import BUNDLED, FIELDS, FILE, Encoders, Reading, load_encoders

Rows = NDArray[np.float32]


class _Eyes:
    """The network, which remembers what it read last: two judges that see the same pictures read them once.

    Raises ModelError as `load_encoders` does.
    """

    def __init__(self, folder: str | Path = BUNDLED, device: torch.device | str = "cpu") -> None:
        self.encoders = load_encoders(folder, device)
        self.fingerprint = hashlib.sha256((Path(folder) / FILE).read_bytes()).hexdigest()
        self._seen: list[Image.Image] = []
        self._readings: list[Reading] = []

    def read(self, pictures: Sequence[Image.Image]) -> list[Reading]:
        """One reading a picture; pictures of one size are read together."""
        known = len(pictures) == len(self._seen)
        if not (known and all(one is other for one, other in zip(pictures, self._seen, strict=True))):
            self._readings = read_pictures(self.encoders, pictures)
            self._seen = list(pictures)
        return self._readings


class _Judge:
    def __init__(self, eyes: _Eyes) -> None:
        self.eyes = eyes
        self.fingerprint = eyes.fingerprint


class IdentityJudge(_Judge):
    """Who a picture shows, (B, D) of length 1; what is behind the subject counts little."""

    name = "toybox-identity"
    image_column = "toy-ID"

    def images(self, pictures: Sequence[Image.Image]) -> Rows:
        return np.concatenate([each.identity.numpy() for each in self.eyes.read(pictures)])


class PromptJudge(_Judge):
    """Scene, style and attribute. A picture is the probabilities of all options, (B, F); a text has 1 / 3 at
    each that it names: their dot product is the mean probability of what is asked for.
    """

    name = "toybox-prompt"
    image_column = None
    text_column = "toy-T"

    def images(self, pictures: Sequence[Image.Image]) -> Rows:
        readings = self.eyes.read(pictures)
        rows = [torch.cat([each.fields[name].softmax(1) for name in FIELDS], 1) for each in readings]
        return torch.cat(rows).numpy()

    def texts(self, texts: Sequence[str]) -> Rows:
        return np.stack([_named(text) for text in texts])


class SceneJudge(_Judge):
    """The probability of the scene that a text names, (B, K) over `world.SCENES`, of any subject: photos put
    into the toybox's scenes too. Texts that name none are not judged.
    """

    name = "toybox-scene"
    image_column = None
    text_column = "place"

    def images(self, pictures: Sequence[Image.Image]) -> Rows:
        readings = self.eyes.read(pictures)
        return torch.cat([each.fields["scene"].softmax(1) for each in readings]).numpy()

    def texts(self, texts: Sequence[str]) -> Rows:
        return place_rows(texts, world.SCENES)


def scene_judge(device: torch.device | str = "cpu") -> SceneJudge:
    """Return the bundled scorer as a judge of scenes. Raises ModelError as `load_encoders` does."""
    return SceneJudge(_Eyes(BUNDLED, device))


def load_judges(
    folder: str | Path = BUNDLED, device: torch.device | str = "cpu"
) -> tuple[PromptJudge, IdentityJudge]:
    """Both judges, over one network. Raises ModelError as `load_encoders` does."""
    eyes = _Eyes(folder, device)
    return PromptJudge(eyes), IdentityJudge(eyes)


def read_pictures(encoders: Encoders, pictures: Sequence[Image.Image]) -> list[Reading]:
    """Return what the network says about each RGB picture; of oblong ones it sees the centre square."""
    square = [each if each.width == each.height else fit_square(each, min(each.size)) for each in pictures]
    found: dict[int, Reading] = {}
    for size in dict.fromkeys(each.size for each in square):
        places = [place for place, each in enumerate(square) if each.size == size]
        stacked = torch.from_numpy(np.stack([np.asarray(square[place]) for place in places]))
        reading = encoders.read(stacked.permute(0, 3, 1, 2))
        for row, place in enumerate(places):
            one = slice(row, row + 1)
            fields = {name: logits[one] for name, logits in reading.fields.items()}
            found[place] = Reading(reading.identity[one], fields, reading.subject[one])
    return [found[place] for place in range(len(square))]


def _named(text: str) -> Rows:
    """(F,). Raises UsageError for a text that names no scene of the toybox."""
    rows = []
    for name, options in FIELDS.items():
        said = [option for option in options if option and f" {option} " in f" {text} "]
        option = max(said, key=len, default="")
        if option not in options:
            raise UsageError(f"The toybox's encoders judge toybox prompts only; {text!r} names no {name}.")
        rows.append(F.one_hot(torch.tensor(options.index(option)), len(options)))
    return (torch.cat(rows).float() / len(FIELDS)).numpy()


class ToyboxFinder:
    """Finds the subject of a toybox picture, whatever it is called: where the network reads the identity."""

    def __init__(self, folder: str | Path = BUNDLED, device: torch.device | str = "cpu") -> None:
        self.encoders = load_encoders(folder, device)
        self.fingerprint = "finder " + hashlib.sha256((Path(folder) / FILE).read_bytes()).hexdigest()

    def find(self, pictures: Sequence[Image.Image], nouns: Sequence[str]) -> list[NDArray[np.bool_]]:
        """B masks (H, W) of square pictures; edges are as coarse as the network's 8 x 8 cells, smoothed."""
        masks = []
        for picture, reading in zip(pictures, read_pictures(self.encoders, pictures), strict=True):
            size = (picture.height, picture.width)
            soft = F.interpolate(reading.subject.sigmoid(), size, mode="bicubic", align_corners=False)
            masks.append((soft[0, 0] > 0.5).numpy())
        return masks
