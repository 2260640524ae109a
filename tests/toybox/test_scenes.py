"""Scenes: every row of the table gives valid, varied pictures that can be told apart."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from jedi_diffusion.errors import UsageError
from jedi_toybox import backdrop
from jedi_toybox.clutter import MOST_CLUTTER, NEAREST, clutter
from jedi_toybox.parts import KINDS, PATTERNS
from jedi_toybox.scene_table import ROWS
from jedi_toybox.scenes import COLORS, NUMBERS, SCENE_WIDTH, SCENES, pack_scene

SIZE = 48
EYES = ((0.0, 0.7, 2.6), (1.3, 1.0, 2.2), (-1.2, 1.5, 1.9))


def pack(names: tuple[str, ...], seed: int) -> Tensor:
    return torch.from_numpy(np.stack([pack_scene(name, np.random.default_rng(seed)) for name in names]))


def view(scene: Tensor, eye: tuple[float, float, float] = EYES[0], size: int = SIZE) -> Tensor:
    """What a camera at `eye` sees of empty scenes, (I, 3, size, size)."""
    place, target = torch.tensor(eye), torch.tensor([0.0, 0.45, 0.0])
    forward = torch.nn.functional.normalize(target - place, dim=0)
    right = torch.nn.functional.normalize(torch.linalg.cross(forward, torch.tensor([0.0, 1.0, 0.0])), dim=0)
    up = torch.linalg.cross(right, forward)
    steps = (torch.arange(size) + 0.5) / size
    v, u = (t.reshape(1, -1).expand(len(scene), -1) for t in torch.meshgrid(steps, steps, indexing="ij"))
    lens = math.tan(math.radians(18))
    rays = forward + lens * ((2 * u[..., None] - 1) * right + (1 - 2 * v[..., None]) * up)
    x, y, z = torch.nn.functional.normalize(rays, dim=-1).unbind(-1)
    start = tuple(place[k].expand(len(scene), 1) for k in range(3))
    reach = torch.where(y < -1e-4, -place[1] / y.clamp(max=-1e-4), torch.full_like(y, 1e4))
    on_ground = reach < backdrop.wall_distance(scene, start, x, y, z)
    far = backdrop.far_color(scene, x, y, z, start)
    ground = backdrop.ground_color(scene, start[0] + reach * x, start[2] + reach * z, reach)
    rgb = (torch.where(on_ground & (y < -1e-4), g, f) for g, f in zip(ground, far, strict=True))
    return torch.stack(backdrop.overlay(scene, u, v, *rgb), 1).reshape(len(scene), 3, size, size)


def statistics(pictures: Tensor) -> Tensor:
    """Means and deviations of colour and of its steps in the upper and the lower half: (I, 24)."""
    halves = [h for part in pictures.chunk(2, dim=2) for h in (part, part.diff(dim=3), part.diff(dim=2))]
    means = [h.mean((2, 3)) if i % 3 == 0 else h.abs().mean((2, 3)) for i, h in enumerate(halves)]
    return torch.cat([*means, *(h.std((2, 3)) for h in halves[::3])], 1)


def test_table_names_only_known_fields():
    assert len(SCENES) == len(set(SCENES)) >= 26
    for name, row in ROWS.items():
        assert set(row) <= set(COLORS) | set(NUMBERS), name


def test_every_scene_gives_finite_colors_in_range():
    scenes = pack(SCENES, 3)
    assert scenes.shape == (len(SCENES), SCENE_WIDTH)
    assert scenes.dtype == torch.float32
    for eye in EYES:
        pictures = view(scenes, eye)
        assert torch.isfinite(pictures).all()
        assert pictures.min() >= 0
        assert pictures.max() <= 1


def test_directions_and_places_of_any_kind_give_finite_colors():
    scenes = pack(SCENES, 4)
    axes = torch.cat([torch.eye(3), -torch.eye(3)]).T.reshape(3, 1, 6).expand(3, len(SCENES), 6)
    far = torch.stack(backdrop.far_color(scenes, *axes))
    place = torch.tensor([0.0, 1e-6, -300.0, 1e6, -1e9, 1e12]).expand(len(SCENES), 6)
    ground = torch.stack(backdrop.ground_color(scenes, place, place.flip(1), place.abs()))
    for colors in (far, ground):
        assert torch.isfinite(colors).all()
        assert colors.min() >= 0
        assert colors.max() <= 1


def test_lights_are_unit_vectors_from_above():
    light = backdrop.light(pack(SCENES, 5))
    torch.testing.assert_close(light.direction.norm(dim=1), torch.ones(len(SCENES)))
    assert (light.direction[:, 1] > 0.2).all()
    # A subject stays readable: lit and ambient light together are well above black in every scene.
    assert ((light.color + light.ambient).mean(1) > 0.7).all()


def test_pack_scene_is_a_pure_function_of_its_seed():
    for name in SCENES:
        one, again, other = (pack_scene(name, np.random.default_rng(seed)) for seed in (1, 1, 2))
        assert np.array_equal(one, again)
        assert np.abs(one - other).max() > 0
    torch.testing.assert_close(view(pack(SCENES[:4], 1)), view(pack(SCENES[:4], 1)), rtol=0, atol=0)


def test_two_seeds_of_a_scene_look_different():
    difference = (view(pack(SCENES, 1)) - view(pack(SCENES, 2))).abs().mean((1, 2, 3))
    assert (difference > 0.01).all(), dict(zip(SCENES, difference.tolist(), strict=True))


def test_a_scene_does_not_depend_on_the_batch():
    scenes = pack(SCENES, 6)
    together = view(scenes)
    for row in range(0, len(SCENES), 5):
        torch.testing.assert_close(view(scenes[row : row + 1]), together[row : row + 1], rtol=0, atol=1e-6)


def test_scenes_can_be_told_apart_by_simple_statistics():
    seeds_known, seeds_new = range(10, 18), range(30, 33)

    def looks(seeds: range) -> Tensor:
        return torch.stack([statistics(view(pack(SCENES, s), EYES[s % len(EYES)], 32)) for s in seeds])

    known, new = looks(seeds_known), looks(seeds_new)
    centers, spread = known.mean(0), known.std(0).mean(0) + 1e-3
    distance = ((new[:, :, None] - centers) / spread).square().sum(-1)
    right = (distance.argmin(-1) == torch.arange(len(SCENES))).float().mean()
    assert right > 0.7  # chance is 1 / 35


def test_walls_stand_on_the_far_side_only():
    scene = pack(("in front of a brick wall",), 1)
    half = scene[:, None, 0] * 0 + float(backdrop.Look(scene)["wall_z"])
    eye = tuple(torch.tensor([[value]]) for value in (0.0, 0.8, 2.6))
    away, back = (torch.tensor([[0.0]]), torch.tensor([[0.0]]), torch.tensor([[-1.0]])), torch.tensor([[1.0]])
    torch.testing.assert_close(backdrop.wall_distance(scene, eye, *away), 2.6 + half)
    assert backdrop.wall_distance(scene, eye, away[0], away[1], back) > 1e3
    assert backdrop.wall_distance(pack(("on the beach",), 1), eye, *away) > 1e3


def test_ground_fades_into_the_haze():
    scene = pack(("on the grass",), 2)
    far = torch.stack(
        backdrop.ground_color(scene, *(torch.full((1, 1), value) for value in (3.0, 4.0, 500.0)))
    )
    torch.testing.assert_close(far[:, 0, 0], torch.cat(backdrop.Look(scene).rgb("haze"), 1)[0])


def test_ring_noise_has_no_seam():
    knots, seed = torch.tensor([[17.0]]), torch.tensor([[5]], dtype=torch.int32)
    ends = backdrop.ring_noise(torch.tensor([[0.0, 1.0 - 1e-6]]), knots, seed)
    assert abs(float(ends[0, 0] - ends[0, 1])) < 1e-3


def test_plane_noise_meets_the_lattice_at_whole_numbers_and_is_smooth():
    x = torch.linspace(-3, 3, 601)[None]
    noise = backdrop.plane_noise(x, torch.full_like(x, 0.3), torch.tensor([[9]], dtype=torch.int32))
    assert noise.min() >= 0
    assert noise.max() < 1
    assert noise.diff().abs().max() < 0.016  # 1.5 (smoothstep's steepest) times the step


def test_unknown_scene_is_refused():
    with pytest.raises(UsageError, match="unknown scene 'on the sun'"):
        pack_scene("on the sun", np.random.default_rng(0))


def test_clutter_keeps_its_distance_and_stays_behind():
    counts = []
    for name in SCENES:
        for seed in range(20):
            parts = clutter(name, np.random.default_rng(seed))
            assert parts == clutter(name, np.random.default_rng(seed))
            counts.append(len(parts))
            for part in parts:
                x, _, z = part.center
                assert math.hypot(x, z) - math.hypot(part.size[0], part.size[2]) >= NEAREST - 1e-9
                assert z < 0
                assert part.kind in KINDS
                assert part.material.pattern in PATTERNS
                assert 0 <= part.material.seed < 1 << 31
    assert max(counts) <= MOST_CLUTTER
    assert 0.2 < np.mean([count == 0 for count in counts]) < 0.6
