"""Intersections against a march along the ray with inside tests of their own, and against closed forms."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from jedi_toybox import geometry
from jedi_toybox.camera import rotation_matrices
from jedi_toybox.geometry import FIRST_SLOT, NO_HIT, SHAPE_WIDTH, SLOT_COUNT
from jedi_toybox.parts import KINDS, Kind

TAPERS = (0.0, 0.5, 1.0, 1.6)
STEPS = torch.linspace(-6, 6, 6001)


def triple(vectors: Tensor) -> geometry.Triple:
    x, y, z = vectors.unbind(-1)
    return x, y, z


def inside(kind: str, p: Tensor, taper: float) -> Tensor:
    """Whether points (..., 3) are inside the unit shape."""
    if kind == "ellipsoid":
        return p.norm(dim=-1) <= 1
    if kind == "box":
        return p.abs().amax(dim=-1) <= 1
    radius = 1 + (taper - 1) * (p[..., 1] + 1) / 2
    return (p[..., 1].abs() <= 1) & (torch.hypot(p[..., 0], p[..., 2]) <= radius)


def interval(kind: str, o: Tensor, d: Tensor, taper: float) -> tuple[Tensor, Tensor]:
    if kind == "ellipsoid":
        return geometry.ellipsoid_interval(triple(o), triple(d))
    if kind == "box":
        return geometry.box_interval(triple(o), triple(d))
    return geometry.frustum_interval(triple(o), triple(d), torch.tensor(taper))


def random_rays(count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    through = torch.rand(count, 3, generator=generator) * 3 - 1.5
    d = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1)
    return through + d * (torch.rand(count, 1, generator=generator) - 0.5), d


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("taper", TAPERS)
def test_intervals_agree_with_a_march(kind: Kind, taper: float) -> None:
    o, d = random_rays(600)
    start, end = interval(kind, o, d, taper)
    met = inside(kind, o[:, None] + STEPS[:, None] * d[:, None], taper)
    first = torch.where(met, STEPS, math.inf).amin(dim=1)
    last = torch.where(met, STEPS, -math.inf).amax(dim=1)
    hit = met.any(dim=1)
    step = float(STEPS[1] - STEPS[0])
    assert 100 < hit.sum() < 600
    assert ((start[hit] - first[hit]).abs() < 1.1 * step).all()
    assert ((end[hit] - last[hit]).abs() < 1.1 * step).all()
    # a ray that the march finds outside may only graze the shape
    assert (end[~hit] - start[~hit] < 2 * step).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("taper", TAPERS)
def test_rays_along_the_axes_give_numbers(kind: Kind, taper: float) -> None:
    d = torch.cat([torch.eye(3), -torch.eye(3)]).repeat_interleave(3, dim=0)
    o = torch.tensor([[0.0, 0.0, 0.0], [0.3, -0.2, 0.4], [3.0, 3.0, 3.0]]).repeat(6, 1)
    start, end = interval(kind, o, d, taper)
    assert not (start.isnan() | end.isnan()).any()
    assert (start[::3] <= 1e-3).all()
    assert (end[1::3] >= start[1::3]).all()
    assert (end[2::3] < start[2::3]).all()


def empty_shapes() -> Tensor:
    shapes = torch.zeros(1, SLOT_COUNT, SHAPE_WIDTH)
    shapes[..., 10] = 5
    return shapes


def place(
    shapes: Tensor, slot: int, center: Tensor, size: Tensor, angles: tuple[float, float, float], taper: float
) -> None:
    """Writes a part, its rotation composed of one rotation an axis, x first."""
    turn = torch.eye(3, dtype=torch.float64)
    for axis, angle in enumerate(angles):
        c, s, (a, b) = (
            math.cos(math.radians(angle)),
            math.sin(math.radians(angle)),
            ((1, 2), (2, 0), (0, 1))[axis],
        )
        one = torch.eye(3, dtype=torch.float64)
        one[a, a], one[b, b], one[a, b], one[b, a] = c, c, -s, s
        turn = one @ turn
    matrix = torch.diag(1 / size) @ turn.T
    shapes[0, slot, :9] = matrix.flatten().float()
    shapes[0, slot, 9:12] = -(matrix @ center).float()
    shapes[0, slot, 12] = taper


@pytest.mark.parametrize("kind", KINDS)
def test_nearest_hit_of_a_turned_part(kind: Kind) -> None:
    shapes, slot = empty_shapes(), FIRST_SLOT[kind] + 3
    center, size = torch.tensor([0.2, 0.1, -0.3]).double(), torch.tensor([0.5, 0.3, 0.2]).double()
    place(shapes, slot, center, size, (30.0, -50.0, 70.0), 0.6)
    place(shapes, FIRST_SLOT["box"], torch.tensor([0.0, 0.0, -9.0]).double(), size, (0.0, 0.0, 0.0), 1.0)
    eye = torch.tensor([[1.0, 0.8, 3.0]])
    aim = torch.rand(400, 3, generator=torch.Generator().manual_seed(1)) - 0.5
    d = torch.nn.functional.normalize(aim - eye, dim=-1)
    t, found = geometry.nearest_hit(shapes, eye, tuple(c[None] for c in d.unbind(-1)))  # type: ignore[arg-type]
    t, found = t[0], found[0]
    steps = torch.linspace(1, 6, 10001).double()
    points = eye.double() + steps[:, None] * d.double()[:, None]
    matrix, offset = shapes[0, slot, :9].view(3, 3).double(), shapes[0, slot, 9:12].double()
    met = inside(kind, points @ matrix.T + offset, 0.6)
    first = torch.where(met, steps, math.inf).amin(dim=1)
    hit = met.any(dim=1)
    assert 40 < hit.sum() < 400
    assert (found[hit] == slot).all()
    assert ((t[hit] - first[hit]).abs() < 1e-3).all()
    assert (t[~hit] == NO_HIT).float().mean() > 0.98


def test_matrices_turn_about_x_first() -> None:
    turned = rotation_matrices(np.array([[90.0, 90.0, 0.0]]))[0] @ np.array([0.0, 1.0, 0.0])
    np.testing.assert_allclose(turned, [1.0, 0.0, 0.0], atol=1e-12)  # y to z about x, then z to x about y


def test_empty_slots_are_never_met() -> None:
    d = torch.nn.functional.normalize(
        torch.randn(1000, 3, generator=torch.Generator().manual_seed(2)), dim=-1
    )
    rays = tuple(c[None] for c in d.unbind(-1))
    t, _ = geometry.nearest_hit(empty_shapes(), torch.zeros(1, 3), rays)  # type: ignore[arg-type]
    assert (t == NO_HIT).all()
    depth = geometry.shade_depth(empty_shapes(), rays, torch.tensor([[0.0, 1.0, 0.0]]))  # type: ignore[arg-type]
    assert (depth == 0).all()


def test_the_nearer_part_is_met() -> None:
    shapes = empty_shapes()
    for slot, z in ((0, -1.0), (1, 1.0), (FIRST_SLOT["box"], 0.0)):
        place(
            shapes,
            slot,
            torch.tensor([0.0, 0.0, z]).double(),
            torch.full((3,), 0.2).double(),
            (0.0, 0.0, 0.0),
            1.0,
        )
    ray = (torch.zeros(1, 1), torch.zeros(1, 1), -torch.ones(1, 1))
    t, slot = geometry.nearest_hit(shapes, torch.tensor([[0.0, 0.0, 5.0]]), ray)
    assert slot.item() == 1
    assert t.item() == pytest.approx(3.8, abs=1e-4)


def test_shade_is_the_way_through_the_part() -> None:
    shapes = empty_shapes()
    place(
        shapes,
        0,
        torch.tensor([0.0, 1.0, 0.0]).double(),
        torch.full((3,), 0.2).double(),
        (0.0, 0.0, 0.0),
        1.0,
    )
    x = torch.tensor([[0.0, 0.12, 0.3]])
    depth = geometry.shade_depth(
        shapes, (x, torch.zeros(1, 3), torch.zeros(1, 3)), torch.tensor([[0.0, 1.0, 0.0]])
    )
    torch.testing.assert_close(
        depth, torch.tensor([[0.4, 0.32, 0.0]]), atol=1e-4, rtol=0
    )  # 2 sqrt(r^2 - x^2)
    above = geometry.shade_depth(
        shapes, (x, torch.full((1, 3), 2.0), torch.zeros(1, 3)), torch.tensor([[0.0, 1.0, 0.0]])
    )
    assert (above == 0).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("taper", TAPERS)
def test_normals_are_upright_on_the_surface(kind: Kind, taper: float) -> None:
    """Against small steps: outwards and inwards, and along the surface, which leave it only near an edge."""
    o, d = random_rays(600)
    start, end = interval(kind, o.double(), d.double(), taper)
    p = (o + start[:, None] * d)[end - start > 0.3]
    slot = torch.full((len(p),), FIRST_SLOT[kind], dtype=torch.int32)
    n = torch.stack(geometry.local_normal(slot, triple(p), torch.tensor(taper)), dim=-1)
    n = torch.nn.functional.normalize(n, dim=-1)
    assert not inside(kind, p + 0.02 * n, taper).any()
    assert inside(kind, p - 0.02 * n, taper).float().mean() > 0.97
    side = torch.nn.functional.normalize(torch.linalg.cross(n, torch.randn_like(n)), dim=-1)
    near_an_edge = ~inside(kind, p - 0.04 * n + 0.02 * side, taper)
    assert inside(kind, p + 0.01 * side - 0.001 * n, taper)[~near_an_edge].float().mean() > 0.95
