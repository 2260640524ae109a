"""The scorer's encoders: who a picture of the toybox shows, and which scene, style and attribute.

They are trained on the world's split "scorer" alone (`encoder_training`), whose subjects occur nowhere
else.
Letters: I pictures; H, W pixels; D identity features; F options of a field; h = 8, cells of a side.
"""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from jedi_diffusion.errors import ModelError
from jedi_diffusion.files import make_folder, write_file
from jedi_diffusion.weights import check_weights_file, half_state, load_strict
from jedi_toybox import world

SIDE = 64
"""Every picture is brought to this many pixels a side: scores do not depend on the size of the output."""
BUNDLED = Path(__file__).parent / "weights" / "scorer"
FILE = "scorer.safetensors"
FEATURES = 64
BATCH = 128  # pictures encoded at once

FIELDS: dict[str, tuple[str, ...]] = {
    "scene": world.SCENES,
    "style": ("", *world.STYLES),
    "attribute": ("", *world.ATTRIBUTES),
}
"""What a prompt says beside its noun, and the options of each field; "" where a picture has none."""
NOUNS = (*world.CLASSES, "")
"""Classes told apart in training; all nameless things are one."""


def prepare(pictures: Tensor) -> Tensor:
    """uint8 pictures (I, 3, H, W) as (I, 3, SIDE, SIDE) float32 in 0..1, by a triangle filter without
    aliases.
    """
    if pictures.shape[-2:] != (SIDE, SIDE):
        # As bytes it is 50 times as fast on a CPU; other devices have no such kernel.
        x = pictures if pictures.device.type == "cpu" else pictures.float()
        pictures = F.interpolate(x, (SIDE, SIDE), mode="bilinear", antialias=True)
    return pictures.float() / 255


class Reading(NamedTuple):
    """identity (I, D), of length 1; fields: logits (I, F) by name; subject: logits (I, 1, h, h), high where
    it is.
    """

    identity: Tensor
    fields: dict[str, Tensor]
    subject: Tensor


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


def _convolution(before: int, after: int, stride: int) -> nn.Sequential:
    layer = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(after), nn.ReLU(inplace=True))


class ScorerNetwork(nn.Module):
    """A small residual network with two branches. It finds the subject by itself (trained against the
    world's masks) and reads the identity there, so that the scene behind does not count.
    """

    def __init__(self, widths: tuple[int, int, int, int] = (24, 48, 96, 128)) -> None:
        super().__init__()
        one, two, three, four = widths
        self.trunk = nn.Sequential(
            nn.PixelUnshuffle(2),
            _convolution(12, one, stride=1),
            _convolution(one, two, stride=2),
            _Residual(two),
            _convolution(two, three, stride=2),
            _Residual(three),
        )
        self.subject = nn.Conv2d(three, 1, 1)
        self.look = nn.Sequential(_Residual(three), nn.Conv2d(three, four, 1))
        self.project = nn.Sequential(nn.Linear(2 * four, four), nn.ReLU(), nn.Linear(four, FEATURES))
        self.whole = _convolution(three, four, stride=2)
        options = {**FIELDS, "noun": NOUNS}
        self.heads = nn.ModuleDict({name: nn.Linear(4 * four, len(each)) for name, each in options.items()})

    def forward(self, pictures: Tensor) -> Reading:
        """pictures: (I, 3, SIDE, SIDE) in 0..1."""
        cells = self.trunk(pictures * 4 - 2)
        subject = self.subject(cells)
        where = subject.float().sigmoid()
        look = self.look(cells).float().relu()
        mean = (look * where).sum((2, 3)) / where.sum((2, 3)).clamp_min(1e-3)
        who = torch.cat([mean, (look * where).amax((2, 3))], 1)
        identity = F.normalize(self.project(who).float(), dim=1)
        whole = self.whole(cells)
        pooled = torch.cat([who, whole.mean((2, 3)), whole.amax((2, 3))], 1)
        return Reading(identity, {name: head(pooled).float() for name, head in self.heads.items()}, subject)


class Encoders:
    """Both encoders over uint8 pictures (I, 3, H, W), in float32, with their own preprocessing. `record`
    says how they were trained.
    """

    def __init__(
        self, network: ScorerNetwork, device: torch.device | str = "cpu", record: dict[str, Any] | None = None
    ) -> None:
        self.network = network.to(device).float().eval()
        self.device = torch.device(device)
        self.record = record or {}

    @torch.no_grad()
    def read(self, pictures: Tensor) -> Reading:
        """Everything that the network says about the pictures, on the CPU."""
        parts = [self.network(prepare(chunk.to(self.device))) for chunk in pictures.split(BATCH)]
        fields = {name: torch.cat([part.fields[name] for part in parts]).cpu() for name in parts[0].fields}
        identity, subject = (torch.cat([part[place] for part in parts]).cpu() for place in (0, 2))
        return Reading(identity, fields, subject)


def prompt_agreement(fields: dict[str, Tensor], wanted: Sequence[world.PictureSpec]) -> Tensor:
    """(I,) in 0..1: the probability of what was asked for, mean over scene, style and attribute (or none).

    Log-probabilities part right from wrong renders more widely (2.6 standard deviations, not 1.9), but reward
    hedging: on the scale of the score a blank grey picture would get 0.4, and so gets less than 0.
    """
    shares = []
    for name, options in FIELDS.items():
        right = torch.tensor([options.index(getattr(spec, name)) for spec in wanted])
        shares.append(fields[name].softmax(1).gather(1, right[:, None]).squeeze(1))
    return torch.stack(shares).mean(0)


def save_encoders(network: ScorerNetwork, folder: str | Path, record: dict[str, Any]) -> Path:
    """Write the weights in half precision, with how they were made (`record`) and the words of the world."""
    path = make_folder(folder) / FILE
    metadata = {"vocabulary": _vocabulary(), "record": json.dumps(record)}
    write_file(path, save(half_state(network), metadata=metadata))
    return path


def load_encoders(folder: str | Path = BUNDLED, device: torch.device | str = "cpu") -> Encoders:
    """Raise ModelError if the file is missing or damaged, or belongs to a world with other words."""
    path = Path(folder) / FILE
    check_weights_file(path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
    if metadata.get("vocabulary") != _vocabulary():
        raise ModelError(
            f"{path} was trained on a toybox with other scenes, styles, attributes or classes; train it anew "
            "with `jedi toybox encoders`."
        )
    network = ScorerNetwork()
    load_strict(network, path)
    return Encoders(network, device, json.loads(metadata.get("record", "{}")))


@cache
def _vocabulary() -> str:
    return json.dumps({**FIELDS, "noun": NOUNS})
