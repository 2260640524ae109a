"""Renders of a mesh, where Mitsuba is installed."""

from pathlib import Path

import numpy as np
import pytest

from jedi_diffusion.errors import DataError

pytest.importorskip("mitsuba", reason="the extra `showroom` is not installed")

from jedi_showroom.cutouts import SIDE
from jedi_showroom.rendering import Mesh, View

CUBE = """mtllib cube.mtl
v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nv 0 0 1\nv 1 0 1\nv 1 1 1\nv 0 1 1
usemtl red
f 1 4 3 2\nf 5 6 7 8\nf 1 2 6 5\nf 4 8 7 3\nf 1 5 8 4\nf 2 3 7 6
"""


def cube(folder: Path) -> Path:
    (folder / "cube.mtl").write_text("newmtl red\nKd 0.8 0.1 0.1\n")
    (folder / "cube.obj").write_text(CUBE)
    return folder / "cube.obj"


def test_a_red_cube_fills_its_cut_out_and_throws_a_shadow_beside_its_foot(tmp_path: Path) -> None:
    light = np.ones((8, 16, 3), np.float32)
    cutout = Mesh(cube(tmp_path)).render(View(0.0, 0.0), light, np.random.default_rng(0))
    solid = cutout.rgba[..., 3] > 128
    # Seen straight from the front, the near face is a square that reaches 82% of the half side.
    rows, columns = np.flatnonzero(solid.any(1)), np.flatnonzero(solid.any(0))
    assert abs(len(rows) - 0.82 * SIDE) <= 2
    assert abs(len(columns) - 0.82 * SIDE) <= 2
    assert solid.sum() >= 0.95 * len(rows) * len(columns)
    red, green, blue = cutout.rgba[solid][:, :3].mean(0)
    assert red > 2 * max(green, blue)
    assert cutout.shadow[rows[-1] - 4 : rows[-1] + 4].max() > 100
    assert cutout.shadow[: SIDE // 2].max() == 0


def test_a_file_without_faces_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "empty.obj").write_text("v 0 0 0\n")
    with pytest.raises(DataError, match=r"empty\.obj"):
        Mesh(tmp_path / "empty.obj")
