"""The scenes of the world, each a row of a table, and how a row with its random variation becomes a vector.

A scene vector holds every colour of `COLORS` (sRGB in 0..1), every number of `NUMBERS` and a seed: what
backdrop.py reads. What a row of the table leaves out has the default: an effect that is off.
"""

import functools

import numpy as np

from jedi_diffusion.errors import UsageError
from jedi_toybox.scene_table import ROWS

COLORS: dict[str, str] = {
    "sky_top": "6fa8e0",
    "sky_low": "cfe4f5",
    "haze": "cfe4f5",  # what the ground fades into
    "cloud": "ffffff",
    "disc": "fff6d8",  # sun, moon or planet
    "ridge_far": "8fa3b8",
    "ridge_near": "6b7f8f",
    "cap": "ffffff",  # snow on ridges, lit windows
    "wall_a": "b0b0b0",
    "wall_b": "a0a0a0",
    "wall_joint": "808080",
    "crown": "3f6b2a",  # foliage over a wall of trunks
    "ground_a": "808080",
    "ground_b": "909090",
    "mark": "ffffff",  # ripples, veins, every second check
    "joint": "606060",
    "spot_a": "ffffff",
    "spot_b": "ffffff",
    "outside_a": "808080",
    "outside_b": "909090",
    "edge": "ffffff",
    "fleck": "ffffff",
    "veil": "ffffff",
    "light": "fff4e0",
    "ambient": "6c7480",
}
NUMBERS: dict[str, float | str] = {
    # sky
    "sky_curve": 3.0,  # how fast the sky turns from low to top
    "cloud_amount": 0.0,
    "cloud_scale": 1.5,
    "stars": 0.0,  # share of sky cells that hold one
    "disc_azimuth": "-60.0..60.0",  # degrees from -z
    "disc_height": "6.0..16.0",  # degrees over the horizon
    "disc_size": 0.0,  # degrees
    "glow": 0.0,
    # ridges on the horizon, in tangents of elevation
    "far_height": -1.0,
    "far_rise": 0.0,
    "near_height": -1.0,
    "near_rise": 0.0,
    "ridge_count": 20.0,  # knots all round
    "skyline": 0.0,  # 1: blocks instead of slopes
    "cap_line": 9.0,  # height from which the far ridge is capped
    "windows": 0.0,
    # walls around the subject, in units of length
    "wall_x": 0.0,  # half width of the room; 0: no walls
    "wall_z": 0.0,
    "wall_top": 99.0,
    "wall_step": 0.0,  # random further height of every block
    "wall_bump": 0.0,  # ragged top
    "brick_w": 50.0,
    "brick_h": 50.0,
    "brick_shift": 0.0,  # of every row against the last, in bricks
    "gap_w": 0.0,  # upright joints
    "gap_h": 0.0,  # level joints
    "brick_spread": 0.0,  # brightness
    "brick_hue": 0.0,
    "brick_lit": 0.0,  # share of bricks in the colour "cap"
    "wall_grain": 3.0,  # noise knots a unit
    "wall_contrast": 0.0,
    "fold": 0.0,  # curtains
    "crown_from": 99.0,
    # ground
    "grain": 2.0,
    "stretch": 1.0,
    "turn": "0.0..180.0",  # degrees
    "contrast": 1.0,
    "fine": 6.0,  # distance at which fine patterns are half gone
    "ripple": 0.0,
    "ripple_count": 2.0,
    "ripple_hard": 1.0,
    "ripple_warp": 0.3,
    "vein": 0.0,
    "tile_w": 50.0,
    "tile_h": 50.0,
    "tile_shift": 0.0,
    "tile_joint": 0.0,
    "tile_check": 0.0,
    "tile_spread": 0.0,
    "spot_cell": 0.3,
    "spot_size": 0.3,  # radius in cells
    "spot_share": 0.0,
    "spot_hue": 0.0,
    "spot_relief": 0.0,
    # the region that the ground pattern fills; outside of it lies another ground
    "region_x": 99.0,
    "region_z": 99.0,
    "region_round": 0.0,
    "region_warp": 0.0,
    "edge_width": 0.0,
    "lane": 0.0,  # half width of a dashed line along the middle
    "waves": 0.0,  # outside
    "pool": 0.0,  # a pool of light around the subject
    "fade": 30.0,
    # in front of the picture
    "flecks": 0.0,
    "fleck_cell": 0.1,
    "fleck_size": 0.12,
    "fleck_long": 1.0,
    "fleck_slant": 0.0,
    "fleck_ring": 0.0,
    "fleck_hue": 0.0,
    "fleck_strength": 0.9,
    "veil_amount": 0.0,
    # light
    "light_azimuth": "-75.0..75.0",
    "light_height": "35.0..60.0",
}
_COLOR_PLACES = {name: 3 * i for i, name in enumerate(COLORS)}
_NUMBER_PLACES = {name: 3 * len(COLORS) + i for i, name in enumerate((*NUMBERS, "seed"))}
SCENE_WIDTH = 3 * len(COLORS) + len(NUMBERS) + 1
SCENES: tuple[str, ...] = tuple(ROWS)

_BRIGHTNESS_JITTER = 0.09
_CHANNEL_JITTER = 0.025


def color_place(name: str) -> int:
    """Index of the first of three channels of a colour in a scene vector."""
    return _COLOR_PLACES[name]


def number_place(name: str) -> int:
    """Index of a number (or of "seed") in a scene vector."""
    return _NUMBER_PLACES[name]


def pack_scene(name: str, rng: np.random.Generator) -> np.ndarray:
    """Return the look of a scene with its random variation: float32 (SCENE_WIDTH,).

    Raises UsageError for a name that is not in SCENES.
    """
    if name not in ROWS:
        raise UsageError(f"unknown scene '{name}'; known: {', '.join(SCENES)}")
    colors, counts, low, high = _row_arrays(name)
    choice = (rng.random(len(counts)) * counts).astype(np.int64)
    drawn = colors[np.arange(len(counts)), choice]
    drawn = drawn * rng.uniform(1 - _BRIGHTNESS_JITTER, 1 + _BRIGHTNESS_JITTER, (len(counts), 1))
    drawn = drawn + rng.uniform(-_CHANNEL_JITTER, _CHANNEL_JITTER, drawn.shape)
    numbers = low + (high - low) * rng.random(len(low))
    seed = float(rng.integers(1 << 24))  # exact in float32
    return np.concatenate([np.clip(drawn, 0, 1).ravel(), numbers, [seed]]).astype(np.float32)


@functools.cache
def _row_arrays(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return a row as arrays: colours (C, options, 3), options of each (C,), low and high (N,) of the
    numbers.
    """
    row = ROWS[name]
    haze = {"haze": row.get("sky_low", COLORS["sky_low"])}
    options = [(haze | row).get(field, default).split("|") for field, default in COLORS.items()]
    most = max(map(len, options))
    colors = np.array([[_rgb(o[i % len(o)]) for i in range(most)] for o in options])
    ranges = [_range(row.get(field, default)) for field, default in NUMBERS.items()]
    low, high = np.array(ranges).T
    return colors, np.array([len(o) for o in options]), low, high


def _rgb(text: str) -> tuple[float, ...]:
    return tuple(int(text[i : i + 2], 16) / 255 for i in (0, 2, 4))


def _range(value: str | float) -> tuple[float, float]:
    """Return a number or a "low..high" as its two ends."""
    ends = str(value).split("..")
    return float(ends[0]), float(ends[-1])
