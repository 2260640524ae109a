"""Styles: a rendered picture turned into a sketch, a mosaic, an old photo ...; pure tensor functions.

Each takes pictures (I, 3, H, W) in 0..1, edges (I, 1, H, W) in 0..1 (outlines known to the renderer) and
int32 seeds (I,), and returns new pictures of the same shape and range. Lengths are shares of the height, so
that a style looks alike at every size.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from jedi_toybox.backdrop import plane_noise
from jedi_toybox.noise import lattice

Style = Callable[[Tensor, Tensor, Tensor], Tensor]


def gray(pictures: Tensor) -> Tensor:
    """Luminance (I, 1, H, W), Rec. 601 weights."""
    r, g, b = pictures.unbind(1)
    return (0.299 * r + 0.587 * g + 0.114 * b)[:, None]


def pencil_sketch(pictures: Tensor, edges: Tensor, seeds: Tensor) -> Tensor:
    """Grey pencil on paper: outlines and hatching that follows the shade; a faint rest of the colours."""
    u, v = _grid(pictures)
    level = _blur(gray(pictures), 1)
    noise = _noise(pictures, seeds, 60)
    hatch = 0.5 + 0.5 * torch.sin((u + v) * 2 * math.pi * 17 + 1.5 * noise)
    cross = 0.5 + 0.5 * torch.sin((u - v) * 2 * math.pi * 17 + 1.5 * noise)
    dark = ((0.75 - level) * 1.7).clamp(0, 1) * hatch * 0.6 + ((0.4 - level) * 2).clamp(0, 1) * cross * 0.5
    strokes = 1 - (dark + 0.9 * _lines(pictures, edges)).clamp(0, 0.9)
    paper = strokes * (0.95 + 0.05 * noise)
    return (paper + 0.22 * (pictures - gray(pictures))).clamp(0, 1)


def pixel_art(pictures: Tensor, edges: Tensor, seeds: Tensor) -> Tensor:
    """Large square pixels (32 across) of few strong colours."""
    blocks = F.interpolate(_block_mean(pictures, 32), size=pictures.shape[-2:], mode="nearest")
    strong = gray(blocks) + 1.25 * (blocks - gray(blocks))
    return (torch.round(strong * 5) / 5).clamp(0, 1)


def watercolor(pictures: Tensor, edges: Tensor, seeds: Tensor) -> Tensor:
    """Light washes that run into each other, darker where they dry at the rims, on white grained paper."""
    u, v = _grid(pictures)
    wander = [(_noise(pictures, seeds + k, 10) - 0.5) * 0.05 for k in (1, 2)]
    grid = torch.cat([u + wander[0], v + wander[1]], 1).permute(0, 2, 3, 1) * 2 - 1
    moved = F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
    wash = _blur(moved, 1)
    steps = torch.round(wash * 6) / 6
    rim = (wash - _blur(wash, 2)).abs().mean(1, keepdim=True)
    pigment = 0.35 * wash + 0.65 * (0.5 * wash + 0.5 * steps)
    light = 0.16 + 0.86 * pigment
    grain = 0.12 * (_noise(pictures, seeds + 3, 70) - 0.5) + 0.14 * (_noise(pictures, seeds + 4, 7) - 0.5)
    dry = ((_border_distance(pictures) + 0.06 * (_noise(pictures, seeds + 5, 14) - 0.5) - 0.035) * 40).clamp(
        0, 1
    )
    painted = light - 1.4 * rim + grain
    return (1 + (painted - 1) * dry).clamp(0, 1)


def comic(pictures: Tensor, edges: Tensor, seeds: Tensor) -> Tensor:
    """Flat strong colours, black outlines, and print dots in the shade."""
    level = gray(pictures)
    strong = (level + 1.6 * (pictures - level)).clamp(0, 1)
    flat = (torch.round(strong * 4) / 4) * 0.85 + 0.15 * strong
    u, v = _grid(pictures)
    raster = torch.sin((u + v) * math.pi * 24) * torch.sin((u - v) * math.pi * 24)
    dots = (raster * 3 + 0.3).clamp(0, 1) * ((0.55 - level) * 4).clamp(0, 0.4)
    outline = torch.maximum(edges, (_change(pictures) * 2.2 - 0.7).clamp(0, 1))
    return (flat * (1 - dots) * (1 - 0.95 * outline)).clamp(0, 1)


def black_and_white(pictures: Tensor, edges: Tensor, seeds: Tensor) -> Tensor:
    """Return a grey photo with strong contrast."""
    level = gray(pictures)
    return ((level - 0.5) * 1.15 + 0.5).clamp(0, 1).expand_as(pictures).contiguous()


def blueprint(pictures: Tensor, edges: Tensor, seeds: Tensor) -> Tensor:
    """White lines and a fine grid on blue paper, the shade as light hatching."""
    u, v = _grid(pictures)
    level = gray(pictures)
    rule = torch.maximum(_ruled(u, 16), _ruled(v, 16)) * 0.14
    hatch = (0.5 + 0.5 * torch.sin((u + v) * 2 * math.pi * 24)) * (level - 0.35).clamp(0, 1) * 0.35
    white = (1.1 * _lines(pictures, edges) + rule + hatch + 0.22 * level).clamp(0, 1)
    paper = pictures.new_tensor([0.05, 0.2, 0.52])[:, None, None] * (0.9 + 0.2 * _noise(pictures, seeds, 5))
    return (paper + (1 - paper) * white).clamp(0, 1)


def old_photo(pictures: Tensor, edges: Tensor, seeds: Tensor) -> Tensor:
    """Sepia, faded, darker towards the corners, with grain, scratches and a white border."""
    u, v = _grid(pictures)
    level = _blur(gray(pictures), 1)
    # Night scenes are printed lighter, or sepia leaves nothing of them.
    exposure = (0.4 / level.mean((2, 3), keepdim=True)).clamp(1, 2.5)
    level = (level * exposure).clamp(max=1) * 0.75 + 0.16
    corner = 1 - 0.9 * ((u - 0.5) ** 2 + (v - 0.5) ** 2)
    grain = 0.1 * (_white_noise(pictures, seeds) - 0.5) + 0.1 * (_noise(pictures, seeds, 6) - 0.5)
    scratch = (_noise_line(pictures, seeds) > 0.965).to(pictures.dtype) * 0.22
    tone = (level * corner + grain + scratch).clamp(0, 1)
    warm = pictures.new_tensor([1.06, 0.86, 0.6])[:, None, None]
    cream = pictures.new_tensor([0.93, 0.88, 0.76])[:, None, None]
    inside = (_border_distance(pictures) > 0.045).to(pictures.dtype)
    return (tone * warm * inside + cream * (1 - inside)).clamp(0, 1)


def mosaic(pictures: Tensor, edges: Tensor, seeds: Tensor) -> Tensor:
    """Irregular small stones in light mortar, each of one colour."""
    u, v = _grid(pictures)
    count = 19
    nearest, second, place = _nearest_stones(u, v, count, seeds)
    stones = F.grid_sample(_blur(pictures, 1), place * 2 - 1, padding_mode="border", align_corners=False)
    across, down = (torch.floor(place[..., k] * 4096).to(torch.int32) for k in (0, 1))
    tint = lattice(across, down, torch.zeros_like(down), seeds[:, None, None])
    stones = stones * (0.85 + 0.3 * tint[:, None])
    solid = ((second - nearest) * 8 - 0.1).clamp(0, 1)
    return (stones * solid + (0.35 * stones + 0.56) * (1 - solid)).clamp(0, 1)


STYLES: dict[str, Style] = {
    "a pencil sketch of": pencil_sketch,
    "a pixel art picture of": pixel_art,
    "a watercolor painting of": watercolor,
    "a comic drawing of": comic,
    "a black and white photo of": black_and_white,
    "a blueprint of": blueprint,
    "an old photo of": old_photo,
    "a mosaic of": mosaic,
}


def _grid(pictures: Tensor) -> tuple[Tensor, Tensor]:
    """u to the right, v downwards, (I, 1, H, W) in 0..1."""
    count, _, height, width = pictures.shape
    v = (torch.arange(height, device=pictures.device, dtype=pictures.dtype) + 0.5) / height
    u = (torch.arange(width, device=pictures.device, dtype=pictures.dtype) + 0.5) / width
    shape = (count, 1, height, width)
    return u.expand(shape), v[:, None].expand(shape)


def _noise(pictures: Tensor, seeds: Tensor, knots: int) -> Tensor:
    u, v = _grid(pictures)
    return plane_noise(u * knots, v * knots, seeds[:, None, None, None])


def _white_noise(pictures: Tensor, seeds: Tensor) -> Tensor:
    u, v = _grid(pictures)
    i, j = (u * 96).to(torch.int32), (v * 96).to(torch.int32)
    return lattice(i, j, torch.zeros_like(i), seeds[:, None, None, None])


def _noise_line(pictures: Tensor, seeds: Tensor) -> Tensor:
    """Noise that is nearly constant down the picture: upright scratches."""
    u, v = _grid(pictures)
    return plane_noise(u * 64, v * 1.5, seeds[:, None, None, None] + 9)


def _ruled(t: Tensor, count: int) -> Tensor:
    place = t * count
    return (1 - (place - torch.floor(place)) * t.shape[-2] / count).clamp(0, 1)


def _border_distance(pictures: Tensor) -> Tensor:
    u, v = _grid(pictures)
    return torch.minimum(torch.minimum(u, 1 - u), torch.minimum(v, 1 - v))


def _blur(pictures: Tensor, times: int) -> Tensor:
    """Return a 3 x 3 box mean, repeated (more often in large pictures); the border repeats the last pixel."""
    for _ in range(times * max(1, round(pictures.shape[-2] / 128))):
        pictures = F.avg_pool2d(F.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, 1)
    return pictures


def _block_mean(pictures: Tensor, count: int) -> Tensor:
    return F.adaptive_avg_pool2d(pictures, (count, count))


def _lines(pictures: Tensor, edges: Tensor) -> Tensor:
    """Outlines (I, 1, H, W): the renderer's edges and the strong changes of the picture itself."""
    return torch.maximum(edges, (_change(_blur(pictures, 1)) * 2.4 - 0.25).clamp(0, 1))


def _change(pictures: Tensor) -> Tensor:
    """Return the largest channel's central differences, across plus down: (I, 1, H, W)."""
    padded = F.pad(pictures, (1, 1, 1, 1), mode="replicate")
    across = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]).abs()
    down = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]).abs()
    return (across + down).amax(1, keepdim=True)


def _nearest_stones(u: Tensor, v: Tensor, count: int, seeds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cells: distances (I, 1, H, W) to the two nearest stones, the centre (I, H, W, 2) of the nearest."""
    x, y = u * count, v * count
    i, j = torch.floor(x).to(torch.int32), torch.floor(y).to(torch.int32)
    seed = seeds[:, None, None, None]
    nearest, second = torch.full_like(u, 9.0), torch.full_like(u, 9.0)
    center_x, center_y = torch.zeros_like(u), torch.zeros_like(v)
    for dj in (-1, 0, 1):
        for di in (-1, 0, 1):
            a, b = i + di, j + dj
            value = lattice(a, b, torch.zeros_like(a), seed)
            px = a + 0.2 + 0.6 * value
            py = b + 0.2 + 0.6 * (value * 251 - torch.floor(value * 251))
            away = torch.sqrt((px - x) ** 2 + (py - y) ** 2)
            closer = away < nearest
            second = torch.where(closer, nearest, torch.minimum(second, away))
            nearest = torch.where(closer, away, nearest)
            center_x, center_y = torch.where(closer, px, center_x), torch.where(closer, py, center_y)
    return nearest, second, torch.stack([center_x[:, 0], center_y[:, 0]], -1) / count
