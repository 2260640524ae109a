"""Pictures from packed tensors: rays, surfaces, light, shadow, scene; and what a style needs to know.

Letters: I pictures; K slots; Q rays of a picture (rows times columns, row by row from the top left); H, W
picture size.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from jedi_toybox import backdrop
from jedi_toybox.geometry import (
    FIRST_SLOT,
    NO_HIT,
    SUBJECT_SLOTS,
    Triple,
    local_normal,
    nearest_hit,
    shade_depth,
)
from jedi_toybox.packing import Packed
from jedi_toybox.textures import pattern_color

CHUNK = 16  # pictures that are drawn at once

_GROUND, _FAR = 62, 63  # surface numbers after the parts' slots
_PENUMBRA = 0.05  # a way of this length through a part is full shadow
_DIRECT = 0.78  # weight of direct light beside ambient
_SHININESS = 30.0
_CONTACT = 0.45  # darkening of the ground beside the subject's foot
_CONTACT_REACH = 0.10  # how far it reaches
_HORIZON = 300.0  # the ground is not looked at farther away
_CREASE = 0.75  # cosine between neighbouring normals below which an edge is drawn
# Inductor options that keep what every ray computes with every slot out of memory.
_FUSE_ALL: dict[str, str | int | bool | Callable[..., object]] = {
    "realize_opcount_threshold": 5000,
    "realize_reads_threshold": 5000,
    "realize_acc_reads_threshold": 5000,
}


class Drawn(NamedTuple):
    """`pictures` (I, 3, H, W) in 0..1; `masks` (I, H, W) bool; `edges` (I, 1, H, W) in 0..1, on outlines and
    creases.
    """

    pictures: Tensor
    masks: Tensor
    edges: Tensor


class _Traced(NamedTuple):
    """Where the rays end. All (I, Q): unit direction and end point; distance; the part met; whether it is a
    part or the ground, else what is far; how much of the light the parts hold back there, in 0..1.
    """

    direction: Triple
    point: Triple
    reach: Tensor
    slot: Tensor
    on_part: Tensor
    on_ground: Tensor
    shadow: Tensor


class _Surface(NamedTuple):
    point: Triple
    normal: Triple
    color: Triple
    gloss: Tensor


def draw(packed: Packed, size: int, supersample: int, compiled: bool) -> Drawn:
    """Draws at most CHUNK pictures on the device of `packed`. `compiled` needs exactly CHUNK of them, so
    that one compilation serves every call of a size.
    """
    trace, shade = _compiled() if compiled else (_trace, _shade)
    return shade(packed, trace(packed, size * supersample), size, supersample)


@functools.cache
def _compiled() -> tuple[Callable[[Packed, int], _Traced], Callable[[Packed, _Traced, int, int], Drawn]]:
    trace = torch.compile(_trace, dynamic=False, options=_FUSE_ALL)
    return trace, torch.compile(_shade, dynamic=False)


def _trace(packed: Packed, side: int) -> _Traced:
    shapes, views, scenes = packed.shapes, packed.views, packed.scenes
    across, down = _grid(side, views)
    eye, direction = _rays(views, 2 * across - 1, 1 - 2 * down)
    t, slot = nearest_hit(shapes, views[:, :3], direction)
    ground_t = torch.where(direction[1] < -1e-4, eye[1] / torch.clamp(-direction[1], min=1e-4), NO_HIT)
    wall_t = backdrop.wall_distance(scenes, eye, *direction)
    on_part = t < torch.minimum(ground_t, wall_t)
    reach = torch.clamp(torch.where(on_part, t, ground_t), max=_HORIZON)
    point = _triple(lambda e, d: e + reach * d, eye, direction)
    shadow = torch.clamp(
        shade_depth(shapes, point, backdrop.light(scenes).direction) * (1 / _PENUMBRA), max=1
    )
    on_ground = ~on_part & (ground_t < wall_t)
    return _Traced(direction, point, reach, torch.where(on_part, slot, 0), on_part, on_ground, shadow)


def _shade(packed: Packed, traced: _Traced, size: int, supersample: int) -> Drawn:
    views, scenes, light = packed.views, packed.scenes, backdrop.light(packed.scenes)
    direction, point, on_part, on_ground = traced.direction, traced.point, traced.on_part, traced.on_ground
    side = size * supersample
    surface = _surface(packed, traced.slot, point)
    part = _lit(surface, light, direction, traced.shadow)
    ground = backdrop.ground_color(scenes, point[0], point[2], traced.reach)
    ground = _shaded_ground(ground, point, views, light, traced.shadow)
    far = backdrop.far_color(scenes, *direction, (views[:, 0:1], views[:, 1:2], views[:, 2:3]))
    rgb = _triple(lambda p, g, f: torch.where(on_part, p, torch.where(on_ground, g, f)), part, ground, far)
    rgb = backdrop.overlay(scenes, *_grid(side, views), *rgb)

    number = torch.where(on_part, traced.slot, torch.where(on_ground, _GROUND, _FAR))
    pictures = _average(torch.stack([c.expand_as(point[0]) for c in rgb], dim=1), side, supersample)
    masks = _average(_is_subject(number)[:, None].float(), side, supersample)[:, 0] >= 0.5
    edges = _average(_edges(number, surface.normal, side), side, supersample)
    return Drawn(pictures.clamp(0, 1), masks, edges)


def _triple(function: Callable[..., Tensor], *triples: Triple) -> Triple:
    x, y, z = (function(*each) for each in zip(*triples, strict=True))
    return x, y, z


def _grid(side: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rays' places in the picture, (I, Q) each in 0..1: across from the left, down from
    the top.
    """
    steps = (torch.arange(side, device=like.device, dtype=torch.float32) + 0.5) / side
    across = steps.expand(like.shape[0], side, side)
    return across.flatten(1), across.transpose(1, 2).flatten(1)


def _rays(views: Tensor, u: Tensor, v: Tensor) -> tuple[Triple, Triple]:
    """Return the camera's place, (I, 1) each, and unit directions (I, Q) each."""
    eye = (views[:, 0:1], views[:, 1:2], views[:, 2:3])
    x, y, z = (views[:, n, None] + u * views[:, n + 3, None] + v * views[:, n + 6, None] for n in (3, 4, 5))
    scale = torch.rsqrt(x * x + y * y + z * z)
    return eye, (x * scale, y * scale, z * scale)


def _surface(packed: Packed, slot: Tensor, point: Triple) -> _Surface:
    """Return what the parts look like at the points, (I, Q); meaningless where no part was met."""
    index = slot.to(torch.int64)

    def of(table: Tensor, first: int, count: int) -> tuple[Tensor, ...]:
        return tuple(torch.gather(table[:, :, n], 1, index) for n in range(first, first + count))

    def colors(first: int) -> Triple:
        r, g, b = of(packed.surfaces, first, 3)
        return r, g, b

    m, (taper,) = of(packed.shapes, 0, 9), of(packed.shapes, 12, 1)
    p = _apply(m, point, of(packed.shapes, 9, 3))
    n = local_normal(slot, p, taper)
    x, y, z = (m[c] * n[0] + m[3 + c] * n[1] + m[6 + c] * n[2] for c in range(3))
    scale = torch.rsqrt(x * x + y * y + z * z + 1e-12)
    q = _apply(of(packed.surfaces, 0, 9), p, of(packed.surfaces, 9, 3))
    pattern, seed, low, high = of(packed.codes, 0, 4)
    color = pattern_color(pattern, q, (colors(12), colors(15), colors(18)), (seed, low, high))
    (gloss,) = of(packed.surfaces, 21, 1)
    return _Surface(point, (x * scale, y * scale, z * scale), color, gloss)


def _apply(m: tuple[Tensor, ...], p: Triple, offset: tuple[Tensor, ...]) -> Triple:
    x, y, z = (m[3 * r] * p[0] + m[3 * r + 1] * p[1] + m[3 * r + 2] * p[2] + offset[r] for r in range(3))
    return x, y, z


def _lit(surface: _Surface, light: backdrop.Light, direction: Triple, shadow: Tensor) -> Triple:
    """Lambert's law with ambient light from above, and Blinn's highlight."""
    n = surface.normal
    to_light = (light.direction[:, 0:1], light.direction[:, 1:2], light.direction[:, 2:3])
    facing = torch.clamp(_dot(n, to_light), min=0) * (1 - shadow)
    half = _triple(torch.sub, to_light, direction)
    between = torch.clamp(_dot(n, half), min=0) * torch.rsqrt(_dot(half, half) + 1e-6)
    shine = surface.gloss * torch.exp(_SHININESS * (between - 1)) * (facing > 0) * (1 - shadow)
    from_above = 0.82 + 0.18 * n[1] - 0.2 * torch.exp(surface.point[1] * -8)
    r, g, b = (
        c * (light.ambient[:, i, None] * from_above + light.color[:, i, None] * _DIRECT * facing)
        + 0.6 * shine * light.color[:, i, None]
        for i, c in enumerate(surface.color)
    )
    return r, g, b


def _shaded_ground(
    color: Triple, point: Triple, views: Tensor, light: backdrop.Light, shadow: Tensor
) -> Triple:
    """Return the lit ground's colour with the parts' shadow and a soft darkening along the subject's foot."""
    beside = tuple(
        torch.clamp(torch.abs(p - views[:, 12 + i, None]) - views[:, 14 + i, None], min=0)
        for i, p in enumerate((point[0], point[2]))
    )
    distance = (beside[0] * beside[0] + beside[1] * beside[1]) * (1 / _CONTACT_REACH**2)
    contact = 1 - _CONTACT * torch.exp(-distance)
    shaded = []
    for i, c in enumerate(color):
        direct = light.color[:, i, None] * light.direction[:, 1:2] * _DIRECT
        ambient = light.ambient[:, i, None]
        shaded.append(c * contact * (ambient + direct * (1 - shadow)) / (ambient + direct))
    r, g, b = shaded
    return r, g, b


def _is_subject(number: Tensor) -> Tensor:
    found = torch.zeros_like(number, dtype=torch.bool)
    for kind, first in FIRST_SLOT.items():
        found = found | ((number >= first) & (number < first + SUBJECT_SLOTS[kind]))
    return found


def _edges(number: Tensor, normal: Triple, side: int) -> Tensor:
    """(I, 1, H, W): 1 where the surface or, sharply, its direction differs from the right or the lower
    neighbour's.
    """
    parts = number < _GROUND
    stack = torch.stack([number.float(), *(torch.where(parts, n, 0.0) for n in normal)], dim=1)
    stack = stack.unflatten(2, (side, side))
    right, below = stack[..., 1:], stack[..., 1:, :]

    def differs(a: Tensor, b: Tensor) -> Tensor:
        crease = ((a[:, 1:] * b[:, 1:]).sum(dim=1) < _CREASE) & (a[:, 0] < _GROUND)
        return ((a[:, 0] != b[:, 0]) | crease).float()[:, None]

    across = F.pad(differs(stack[..., :-1], right), (0, 1))
    down = F.pad(differs(stack[..., :-1, :], below), (0, 0, 0, 1))
    return torch.maximum(across, down).flatten(2)


def _average(values: Tensor, side: int, supersample: int) -> Tensor:
    """(I, C, Q) to (I, C, H, W), each pixel the mean of its rays."""
    grid = values.unflatten(2, (side, side))
    return grid if supersample == 1 else F.avg_pool2d(grid, supersample)


def _dot(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> Tensor:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
