"""Prompt scores without CLIP: which place a picture shows, from EfficientNet-Lite's features.

Letters: B pictures or texts; D features; K places.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save

from jedi_diffusion.errors import DataError, ModelError, UsageError
from jedi_diffusion.files import make_folder, write_file
from jedi_diffusion.vision.features import Rows
from jedi_diffusion.vision.lite import LiteName
from jedi_diffusion.weights import check_weights_file

if TYPE_CHECKING:
    from PIL import Image

    from jedi_diffusion.vision.lite import LiteEncoder

PENALTY = 1e-3
"""Of the squared weights, beside the mean cross-entropy, for features of deviation 1."""
STEPS = 200


@dataclass(frozen=True)
class PlaceClassifier:
    """places: K phrases ("on the beach"); weight (K, D), bias (K,). record: how it was trained."""

    places: tuple[str, ...]
    encoder: LiteName
    weight: torch.Tensor
    bias: torch.Tensor
    record: dict[str, Any] = field(default_factory=dict)

    def probabilities(self, rows: Rows) -> Rows:
        """Return (B, K) of the encoder's `raw` features (B, D)."""
        return F.linear(torch.from_numpy(rows), self.weight, self.bias).softmax(1).numpy()

    def check_knows(self, places: Sequence[str]) -> None:
        """Raise UsageError for a place that is not among the classifier's."""
        unknown = next((place for place in places if place not in self.places), None)
        if unknown is not None:
            known = ", ".join(self.places)
            raise UsageError(f"The place classifier does not know {unknown!r}; it knows {known}.")

    def save(self, path: str | Path) -> None:
        """Write the classifier as safetensors. Raises OutputError."""
        make_folder(Path(path).parent)
        metadata = {
            "places": json.dumps(self.places),
            "encoder": self.encoder,
            "record": json.dumps(self.record),
        }
        write_file(path, save({"weight": self.weight.half(), "bias": self.bias.half()}, metadata))

    @classmethod
    def load(cls, path: str | Path) -> PlaceClassifier:
        """Raise ModelError for a file that is damaged or no place classifier."""
        shapes = check_weights_file(path)
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name).float() for name in shapes}
        try:
            places = tuple(map(str, json.loads(metadata["places"])))
            encoder = metadata["encoder"]
            record = dict(json.loads(metadata["record"]))
            weight, bias = tensors["weight"], tensors["bias"]
            sound = (
                encoder in get_args(LiteName) and weight.ndim == 2 and len(weight) == len(bias) == len(places)
            )
        except (KeyError, ValueError, TypeError):
            sound = False
        if not sound:
            raise ModelError(f"{path} is no place classifier; `jedi evaluate places` trains one.")
        return cls(places, encoder, weight, bias, record)


class PlaceJudge:
    """The probability of the place that a text names; texts without a known place are not judged."""

    image_column = None
    text_column = "place"

    def __init__(self, classifier: PlaceClassifier, encoder: LiteEncoder) -> None:
        if encoder.variant != classifier.encoder:
            raise ModelError(f"This place classifier reads {classifier.encoder}, not {encoder.variant}.")
        self.classifier, self.encoder = classifier, encoder
        self.name = f"place-{encoder.name}"
        digest = hashlib.sha256(json.dumps(classifier.places).encode())
        digest.update(classifier.weight.numpy().tobytes() + classifier.bias.numpy().tobytes())
        self.fingerprint = f"{encoder.fingerprint} {digest.hexdigest()}"

    def images(self, pictures: Sequence[Image.Image]) -> Rows:
        """Return (B, K) probabilities."""
        return self.classifier.probabilities(self.encoder.raw(pictures))

    def texts(self, texts: Sequence[str]) -> Rows:
        """Return (B, K): 1 at the place, 0 everywhere for a text without a known one."""
        return place_rows(texts, self.classifier.places)


def place_rows(texts: Sequence[str], places: Sequence[str]) -> Rows:
    """Return (B, K): 1 at the place that a text names, 0 everywhere for a text without one of `places`."""
    rows = np.zeros((len(texts), len(places)), np.float32)
    for row, text in zip(rows, texts, strict=True):
        place = place_in(text, places)
        if place is not None:
            row[place] = 1
    return rows


def place_in(text: str, places: Sequence[str]) -> int | None:
    """Return the number of the longest place whose words stand in `text`; None where there is none."""
    found = [
        number for number, place in enumerate(places) if re.search(rf"\b{re.escape(place)}\b", text, re.I)
    ]
    return max(found, key=lambda number: len(places[number]), default=None)


class Examples(NamedTuple):
    """Features (B, D) and the numbers of their places (B,)."""

    rows: Rows
    labels: NDArray[np.int64]


class Quality(NamedTuple):
    """The share of pictures whose place is the likeliest, and the mean probability of the right place."""

    accuracy: float
    probability: float
    pictures: int


def train_places(
    places: Sequence[str], encoder: LiteName, train: Examples, test: Examples, record: dict[str, Any]
) -> PlaceClassifier:
    """Fit multinomial logistic regression on `train` and measure it on `test`, for the record.

    Raises DataError for a place without examples in one of them.
    """
    for name, examples in (("train on", train), ("test with", test)):
        missing = sorted(set(range(len(places))) - set(examples.labels.tolist()))
        if missing:
            raise DataError(f"There are no pictures to {name} for the place {places[missing[0]]!r}.")
    rows, labels = torch.from_numpy(train.rows).double(), torch.from_numpy(train.labels)
    mean, deviation = rows.mean(0), rows.std(0, correction=0).clamp_min(1e-6)
    rows = (rows - mean) / deviation
    weight = torch.zeros(len(places), rows.shape[1], dtype=torch.double, requires_grad=True)
    bias = torch.zeros(len(places), dtype=torch.double, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(F.linear(rows, weight, bias), labels) + PENALTY * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    scaled = (weight / deviation).detach()
    fitted = PlaceClassifier(
        tuple(places), encoder, scaled.float(), (bias - scaled @ mean).detach().float(), record
    )
    record |= {"trained_on": len(labels), "held_out": quality(fitted, test)._asdict()}
    return fitted


def quality(classifier: PlaceClassifier, examples: Examples) -> Quality:
    """Return how well the classifier tells the places of examples that it was not trained on."""
    found = classifier.probabilities(examples.rows)
    right = found[np.arange(len(found)), examples.labels]
    return Quality(float((found.argmax(1) == examples.labels).mean()), float(right.mean()), len(found))
