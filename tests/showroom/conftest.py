"""A showroom of drawn cut-outs and invented places, without the public packages."""

from pathlib import Path

import numpy as np
import pytest

from jedi_showroom import cutouts, source
from jedi_showroom.cutouts import Cutout
from jedi_showroom.places import Panorama, Plain, Room
from jedi_showroom.source import ShowroomSource
from jedi_showroom.subjects import Subject

SIDE = 32


def subject(number: int, noun: str) -> Subject:
    return Subject(f"test/{number}", noun, f"{number}", "nobody", "CC0")


def square(shade: int) -> Cutout:
    """A square of one colour in the middle of the cut-out, with a shadow in its lowest rows."""
    rgba = np.zeros((SIDE, SIDE, 4), np.uint8)
    rgba[8:24, 8:24] = (shade, 40, 200, 255)
    shadow = np.zeros((SIDE, SIDE), np.uint8)
    shadow[24:28] = 255
    return Cutout(rgba, shadow, 0.0, 0.25, 0.24)


@pytest.fixture
def showroom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ShowroomSource:
    """Twenty subjects of two views each; places without a toybox scene."""
    for number in range(20):
        views = [square(10 * number), square(10 * number + 5)]
        cutouts.write(tmp_path / "cutouts", subject(number, f"thing{chr(97 + number)}"), views)
    rng = np.random.default_rng(0)
    texture = rng.random((8, 8, 3))
    places = [Plain(), Panorama("in a park", rng.random((16, 32, 3))), Room("on clay", texture, texture)]
    monkeypatch.setattr(source, "load_places", lambda packages, unpacked: places)
    monkeypatch.setattr(source, "TOYBOX_SHARE", 0.0)
    return ShowroomSource(tmp_path, tmp_path, seed=3)
