"""What is seen around a subject: sky, horizon, walls, ground, what falls in front; and the light of a scene.

I pictures, Q rays of a picture, K = SCENE_WIDTH. Per-picture values are (I, 1), per-ray values (I, Q).
Colours are sRGB, lit already: a renderer only has to darken the ground where the subject's shadow falls. One
set of formulas serves every scene; what a scene does not use has weight 0.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from jedi_toybox.noise import lattice
from jedi_toybox.scenes import color_place, number_place

Rgb = tuple[Tensor, Tensor, Tensor]
_FAR = 1e4


class Look:
    """Scenes (I, K), their fields by name: numbers (I, 1), colours three (I, 1), seeds int32 (I, 1)."""

    def __init__(self, scene: Tensor) -> None:
        self.scene = scene
        self.seed = self["seed"].to(torch.int32)

    def __getitem__(self, name: str) -> Tensor:
        place = number_place(name)
        return self.scene[:, place : place + 1]

    def rgb(self, name: str) -> Rgb:
        """Return a colour of the scenes."""
        place = color_place(name)
        r, g, b = (self.scene[:, k : k + 1] for k in range(place, place + 3))
        return r, g, b


class Light(NamedTuple):
    """`direction` (I, 3): unit vectors to the light; `color`, `ambient` (I, 3): sRGB strengths."""

    direction: Tensor
    color: Tensor
    ambient: Tensor


def light(scene: Tensor) -> Light:
    """Return the light of scenes (I, K)."""
    look = Look(scene)
    azimuth, height = (look[n] * (math.pi / 180) for n in ("light_azimuth", "light_height"))
    level = torch.cos(height)
    direction = torch.cat([level * torch.sin(azimuth), torch.sin(height), level * torch.cos(azimuth)], dim=1)
    return Light(direction, torch.cat(look.rgb("light"), 1), torch.cat(look.rgb("ambient"), 1))


def wall_distance(scene: Tensor, eye: Rgb, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """Ray length (I, Q) at which the walls behind the subject stand; very large where a scene has none.

    The room is a box around the origin; only walls that a ray leaves the room through are seen, so a camera
    outside of the room looks into it. `eye` is the camera's place, three (I, 1); direction x, y, z each
    (I, Q). Ground farther away than this is hidden.
    """
    look = Look(scene)
    ahead_x, ahead_z = _walls_ahead(look, eye, x, z)
    reached = torch.minimum(ahead_x, ahead_z)
    height = eye[1] + reached * y
    low_enough = height < look["wall_top"] + look["wall_step"] + look["wall_bump"]
    return torch.where(low_enough, reached, torch.full_like(reached, _FAR))


def far_color(scene: Tensor, x: Tensor, y: Tensor, z: Tensor, eye: Rgb | None = None) -> Rgb:
    """Colours (I, Q) of what lies behind everything: walls, or sky with its horizon.

    Direction x, y, z each (I, Q), of unit length; `eye` is the camera's place, three (I, 1), which moves the
    walls (default: a camera straight in front).
    """
    if eye is None:
        zero = torch.zeros_like(scene[:, :1])
        eye = (zero, zero + 0.8, zero + 2.8)
    look = Look(scene)
    seed = look.seed
    ahead_x, ahead_z = _walls_ahead(look, eye, x, z)
    on_x = ahead_x < ahead_z
    reached = torch.minimum(ahead_x, ahead_z)
    along = torch.where(on_x, eye[2] + reached * z, eye[0] + reached * x)
    height = eye[1] + reached * y
    has_wall = look["wall_x"] > 0

    spread = look["cloud_scale"] / (y.abs() + 0.2)
    grain = look["wall_grain"]
    haze = plane_noise3(
        torch.where(has_wall, along * grain, x * spread),
        torch.where(has_wall, height * grain, z * spread),
        seed + 11,
    )
    block = lattice(
        torch.floor(along * 0.9).to(torch.int32), on_x.to(torch.int32), on_x.to(torch.int32), seed + 5
    )
    top = look["wall_top"] + look["wall_step"] * block + look["wall_bump"] * (haze - 0.2)
    is_wall = has_wall & (height < top) & (reached < _FAR)
    wall = _wall(look, along, height, on_x, haze, seed)
    sky = _sky(look, x, y, z, haze, seed)
    return _choose(is_wall, wall, sky)


def ground_color(scene: Tensor, x: Tensor, z: Tensor, distance: Tensor) -> Rgb:
    """Colours (I, Q) of the ground at x, z, seen from `distance` (all (I, Q)), fading into the horizon."""
    x, z, distance = x.clamp(-300, 300), z.clamp(-300, 300), distance.clamp(0, _FAR)
    look = Look(scene)
    seed = look.seed
    near = 1 / (1 + (distance / look["fine"]) ** 4)
    turn = look["turn"] * (math.pi / 180)
    p, q = x * torch.cos(turn) - z * torch.sin(turn), x * torch.sin(turn) + z * torch.cos(turn)
    grain = look["grain"]
    coarse = plane_noise(p * grain * look["stretch"], q * grain, seed)
    fine = plane_noise(p * grain * 3.7 * look["stretch"], q * grain * 3.7, seed + 1)
    dust = plane_noise(x * grain * 9.1, z * grain * 9.1, seed + 2)
    mixed = coarse + near * (0.7 * (fine - 0.5) + 0.5 * (dust - 0.5))
    amount = ((mixed - 0.5) * look["contrast"] + 0.5).clamp(0, 1)

    rgb = _mix(look.rgb("ground_a"), look.rgb("ground_b"), amount)
    rgb = _ripples(look, rgb, p, q, coarse, near)
    rgb = _tiles(look, rgb, p, q, near, seed)
    dash = ((look["lane"] - p.abs()) * 60 + 0.5).clamp(0, 1) * (look["lane"] > 0) * (_border(_cycle(q)) > 0.2)
    rgb = _mix(rgb, look.rgb("mark"), dash)
    rgb = _spots(look, rgb, x, z, near, seed)
    rgb = _outside(look, rgb, x, z, p, q, coarse, mixed, near)
    radius2 = x * x + z * z
    pool = look["pool"]
    shade = 1 - pool.clamp(max=1) * (1 - 1 / (1 + 0.18 * radius2 * radius2))
    rgb = _scale(rgb, shade)
    return _mix(rgb, look.rgb("haze"), 1 - torch.exp(-((distance / look["fade"]) ** 2)))


def overlay(scene: Tensor, u: Tensor, v: Tensor, r: Tensor, g: Tensor, b: Tensor) -> Rgb:
    """Return what falls in front of a picture (snow, rain, bubbles, leaves) over colours r, g, b; all (I, Q).

    u to the right and v downwards, in 0..1 across the picture.
    """
    look = Look(scene)
    seed, rgb = look.seed, _mix((r, g, b), look.rgb("veil"), look["veil_amount"])
    size, ring = look["fleck_size"], look["fleck_ring"]
    for layer, zoom in enumerate((1.0, 1.7)):
        cell = look["fleck_cell"] / zoom
        down = v / (cell * look["fleck_long"])
        across = (u + look["fleck_slant"] * v) / cell
        value, dx, dy, present = _scatter(across, down, size, look["flecks"], seed + 40 + layer)
        near2 = (dx * dx + dy * dy) / (size * size)
        body = ((1 - near2) * 2).clamp(0, 1)
        hoop = (1 - (near2 - 0.7).abs() * 4).clamp(0, 1)
        strength = torch.lerp(body, hoop, ring.expand_as(body)) * present * look["fleck_strength"]
        rgb = _mix(rgb, _tint(look.rgb("fleck"), value, look["fleck_hue"]), strength)
    return _clamp(rgb)


def plane_noise(x: Tensor, y: Tensor, seed: Tensor) -> Tensor:
    """Smooth value noise of the plane in [0, 1)."""
    fx, fy = torch.floor(x), torch.floor(y)
    i, j = fx.to(torch.int32), fy.to(torch.int32)
    u, v = x - fx, y - fy
    u, v = u * u * (3 - 2 * u), v * v * (3 - 2 * v)
    zero = torch.zeros_like(i)
    low = torch.lerp(lattice(i, j, zero, seed), lattice(i + 1, j, zero, seed), u)
    high = torch.lerp(lattice(i, j + 1, zero, seed), lattice(i + 1, j + 1, zero, seed), u)
    return torch.lerp(low, high, v)


def plane_noise3(x: Tensor, y: Tensor, seed: Tensor) -> Tensor:
    """Three octaves of plane noise in [0, 1)."""
    octaves = (plane_noise(x * k, y * k, seed + k) / k for k in (1, 2, 4))
    return sum(octaves, torch.zeros_like(x)) / 1.75


def ring_noise(turn: Tensor, knots: Tensor, seed: Tensor) -> Tensor:
    """Smooth noise in [0, 1) of an angle (`turn`: 0..1 once round) through `knots` values; no seam."""
    place = turn * knots
    left = torch.floor(place)
    i, n = left.to(torch.int32), knots.to(torch.int32)
    t = place - left
    zero = torch.zeros_like(i)
    here, there = (lattice(torch.remainder(k, n), zero, zero, seed) for k in (i, i + 1))
    return torch.lerp(here, there, t * t * (3 - 2 * t))


def _walls_ahead(look: Look, eye: Rgb, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """Ray lengths to the room's walls across x and across z; _FAR where a ray meets none."""

    def ahead(half: Tensor, start: Tensor, step: Tensor) -> Tensor:
        step = torch.where(step.abs() < 1e-5, torch.full_like(step, 1e-5), step)
        length = (torch.sign(step) * half - start) / step
        return torch.where((length > 0) & (half > 0), length.clamp(max=_FAR), torch.full_like(length, _FAR))

    return ahead(look["wall_x"], eye[0], x), ahead(look["wall_z"], eye[2], z)


def _wall(look: Look, along: Tensor, height: Tensor, on_x: Tensor, noise: Tensor, seed: Tensor) -> Rgb:
    rows = height / look["brick_h"]
    row = torch.floor(rows)
    columns = along / look["brick_w"] + row * look["brick_shift"]
    column = torch.floor(columns)
    value = lattice(column.to(torch.int32), row.to(torch.int32), on_x.to(torch.int32), seed + 3)
    gap = look["gap_w"] * (0.6 + 0.8 * value)
    side = _border(columns - column) * look["brick_w"] - gap
    level = _border(rows - row) * look["brick_h"] - look["gap_h"]
    has_gap = (look["gap_w"] + look["gap_h"] > 0).to(side.dtype)
    inside = torch.maximum((torch.minimum(side, level) * 40 + 0.5).clamp(0, 1), 1 - has_gap)

    amount = ((noise - 0.5) * look["wall_contrast"] + 0.5).clamp(0, 1)
    rgb = _mix(look.rgb("wall_a"), look.rgb("wall_b"), amount)
    rgb = _tint(rgb, value, look["brick_hue"])
    rgb = _scale(rgb, 1 + look["brick_spread"] * (_part(value, 61) - 0.5))
    rgb = _mix(rgb, look.rgb("cap"), (_part(value, 17) < look["brick_lit"]).to(value.dtype))
    rgb = _mix(look.rgb("wall_joint"), rgb, inside)
    crown = ((height - look["crown_from"] + 1.6 * (noise - 0.5)) * 8).clamp(0, 1)
    rgb = _mix(rgb, _scale(look.rgb("crown"), 0.55 + 0.9 * noise), crown)
    fold = torch.sin(along * 9 + 2.5 * noise) + 0.4 * torch.sin(along * 23)
    foot = 0.75 + 0.25 * (height * 2.5).clamp(0, 1)
    return _scale(rgb, (1 + look["fold"] * fold) * foot * torch.where(on_x, 0.86, 1.0))


def _sky(look: Look, x: Tensor, y: Tensor, z: Tensor, noise: Tensor, seed: Tensor) -> Rgb:
    up = y.clamp(min=0)
    rgb = _mix(look.rgb("sky_low"), look.rgb("sky_top"), 1 - torch.exp(-up * look["sky_curve"]))
    cloud = ((noise - 0.52) * 4).clamp(0, 1) * (up * 8).clamp(0, 1) * look["cloud_amount"]
    rgb = _mix(rgb, look.rgb("cloud"), cloud)
    turn = torch.atan2(x, -z) / (2 * math.pi) + 0.5
    slope = y / torch.sqrt(x * x + z * z + 1e-6)
    rgb = _stars(look, rgb, turn, slope, seed)
    rgb = _disc(look, rgb, x, y, z)

    knots = look["ridge_count"]
    back = 1 - (2 * ring_noise(turn, knots, seed + 20) - 1).abs()
    detail = ring_noise(turn, torch.floor(knots * 3.5), seed + 21)
    far_top = look["far_height"] + look["far_rise"] * (0.8 * back + 0.2 * detail)
    capped = ((slope - look["cap_line"] + 0.06 * (detail - 0.5)) * 60).clamp(0, 1)
    far = _mix(look.rgb("ridge_far"), look.rgb("cap"), capped)
    rgb = _mix(rgb, far, _above(far_top, slope))

    column = torch.floor(turn * knots * 3)
    zero = torch.zeros_like(column).to(torch.int32)
    block = lattice(column.to(torch.int32), zero, zero, seed + 22)
    rise = torch.lerp(0.6 * ring_noise(turn, knots * 2, seed + 23) + 0.4 * detail, block, look["skyline"])
    near_top = look["near_height"] + look["near_rise"] * rise
    across = turn * knots * 15
    window_row = torch.floor(slope * 60)
    glass = lattice(torch.floor(across).to(torch.int32), window_row.to(torch.int32), zero, seed + 24)
    lit = (glass < look["windows"]) & (_border(across - torch.floor(across)) > 0.18)
    near = _mix(_scale(look.rgb("ridge_near"), 0.85 + 0.3 * block), look.rgb("cap"), lit.to(slope.dtype))
    return _mix(rgb, near, _above(near_top, slope))


def _stars(look: Look, rgb: Rgb, turn: Tensor, slope: Tensor, seed: Tensor) -> Rgb:
    value, dx, dy, present = _scatter(
        turn * 150, slope * 24, torch.full_like(slope, 0.25), look["stars"], seed
    )
    shine = (1.4 - (dx * dx + dy * dy) * (20 + 60 * value)).clamp(0, 1) * present
    return _mix(rgb, (torch.ones_like(slope),) * 3, shine * (slope > 0))


def _disc(look: Look, rgb: Rgb, x: Tensor, y: Tensor, z: Tensor) -> Rgb:
    azimuth, height, size = (look[n] * (math.pi / 180) for n in ("disc_azimuth", "disc_height", "disc_size"))
    level = torch.cos(height)
    cosine = x * level * torch.sin(azimuth) + y * torch.sin(height) - z * level * torch.cos(azimuth)
    angle = torch.sqrt((2 - 2 * cosine).clamp(min=0))
    inside = ((size - angle) * 120 + 0.5).clamp(0, 1) * (size > 0)
    glow = look["glow"] * torch.exp(-5 * (angle - size).clamp(min=0))
    return _mix(rgb, look.rgb("disc"), torch.maximum(inside, glow))


def _ripples(look: Look, rgb: Rgb, p: Tensor, q: Tensor, noise: Tensor, near: Tensor) -> Rgb:
    wave = torch.sin(2 * math.pi * (q * look["ripple_count"] + look["ripple_warp"] * (noise - 0.5)))
    crest = 0.5 + 0.5 * (wave * look["ripple_hard"]).clamp(-1, 1)
    rgb = _mix(rgb, look.rgb("mark"), look["ripple"] * torch.lerp(torch.full_like(p, 0.5), crest, near))
    vein = (1 - (noise - 0.5).abs() * 14).clamp(0, 1) * near
    return _mix(rgb, look.rgb("mark"), look["vein"] * vein)


def _tiles(look: Look, rgb: Rgb, p: Tensor, q: Tensor, near: Tensor, seed: Tensor) -> Rgb:
    rows = q / look["tile_h"]
    row = torch.floor(rows)
    columns = p / look["tile_w"] + row * look["tile_shift"]
    column = torch.floor(columns)
    i, j = column.to(torch.int32), row.to(torch.int32)
    value = lattice(i, j, torch.zeros_like(i), seed + 30)
    odd = ((i + j) & 1).to(p.dtype)
    rgb = _mix(
        rgb,
        look.rgb("mark"),
        look["tile_check"] * torch.lerp(torch.full_like(p, 0.5), odd, near),
    )
    rgb = _scale(rgb, 1 + look["tile_spread"] * (value - 0.5) * near)
    side = _border(columns - column) * look["tile_w"]
    level = _border(rows - row) * look["tile_h"]
    joint = ((look["tile_joint"] - torch.minimum(side, level)) * 60 + 0.5).clamp(0, 1)
    return _mix(rgb, look.rgb("joint"), joint * near * (look["tile_joint"] > 0))


def _spots(look: Look, rgb: Rgb, x: Tensor, z: Tensor, near: Tensor, seed: Tensor) -> Rgb:
    size = look["spot_size"]
    for layer, zoom in enumerate((1.0, 1.6)):
        cell = look["spot_cell"] / zoom
        value, dx, dz, present = _scatter(x / cell, z / cell, size, look["spot_share"], seed + 31 + layer)
        body = ((1 - (dx * dx + dz * dz) / (size * size)) * 2.5).clamp(0, 1) * present * near
        paint = _mix(look.rgb("spot_a"), look.rgb("spot_b"), _part(value, 7))
        paint = _tint(paint, value, look["spot_hue"])
        rgb = _mix(rgb, _scale(paint, 1 + look["spot_relief"] * (dx - dz) / size), body)
    return rgb


def _outside(
    look: Look,
    rgb: Rgb,
    x: Tensor,
    z: Tensor,
    p: Tensor,
    q: Tensor,
    noise: Tensor,
    mixed: Tensor,
    near: Tensor,
) -> Rgb:
    """Another ground beyond the region: sea round a beach, grass beside a road, the floor under a rug."""
    half_x, half_z, is_round = (look[n] for n in ("region_x", "region_z", "region_round"))
    square = torch.maximum(p.abs() - half_x, q.abs() - half_z)
    beyond = torch.where(is_round > 0, torch.sqrt(x * x + z * z) - half_x, square)
    beyond = beyond + look["region_warp"] * (noise - 0.5)
    wave = torch.sin(beyond * 9 + 5 * mixed) * look["waves"] * (0.25 + 0.75 * near)
    amount = (mixed + wave).clamp(0, 1)
    other = _mix(look.rgb("outside_a"), look.rgb("outside_b"), amount)
    width = look["edge_width"]
    on_edge = ((width / 2 - (beyond - width / 2).abs()) * 30 + 0.5).clamp(0, 1) * (width > 0)
    return _mix(_mix(rgb, other, (beyond * 30 + 0.5).clamp(0, 1)), look.rgb("edge"), on_edge)


def _scatter(
    x: Tensor, y: Tensor, size: Tensor, share: Tensor, seed: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """At most one dot in a unit cell: its hash, the offsets from its centre, whether it is there (0, 1)."""
    fx, fy = torch.floor(x), torch.floor(y)
    i, j = fx.to(torch.int32), fy.to(torch.int32)
    value = lattice(i, j, torch.zeros_like(i), seed + 7)
    room = 1 - 2 * size
    dx = x - fx - 0.5 - room * (_part(value, 251) - 0.5)
    dy = y - fy - 0.5 - room * (_part(value, 4093) - 0.5)
    return value, dx, dy, (_part(value, 17) < share).to(x.dtype)


def _part(value: Tensor, k: int) -> Tensor:
    """Another uniform value in [0, 1) out of the lower bits of one."""
    return _cycle(value * k)


def _cycle(t: Tensor) -> Tensor:
    return t - torch.floor(t)


def _border(t: Tensor) -> Tensor:
    return torch.minimum(t, 1 - t)


def _above(top: Tensor, slope: Tensor) -> Tensor:
    return ((top - slope) * 150 + 0.5).clamp(0, 1)


def _mix(one: Rgb, other: Rgb, amount: Tensor) -> Rgb:
    r, g, b = (a + (c - a) * amount for a, c in zip(one, other, strict=True))
    return r, g, b


def _choose(condition: Tensor, one: Rgb, other: Rgb) -> Rgb:
    r, g, b = (torch.where(condition, a, c).clamp(0, 1) for a, c in zip(one, other, strict=True))
    return r, g, b


def _scale(rgb: Rgb, factor: Tensor) -> Rgb:
    r, g, b = (c * factor for c in rgb)
    return r, g, b


def _tint(rgb: Rgb, value: Tensor, amount: Tensor) -> Rgb:
    """Each channel moved by its own random share of `amount`."""
    r, g, b = (c + amount * (_part(value, k) - 0.5) for c, k in zip(rgb, (3, 29, 127), strict=True))
    return r, g, b


def _clamp(rgb: Rgb) -> Rgb:
    r, g, b = (c.clamp(0, 1) for c in rgb)
    return r, g, b
