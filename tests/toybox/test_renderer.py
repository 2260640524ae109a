"""Whole pictures of a small subject: masks, shadows, supersampling, and the compiled twin."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from jedi_diffusion.errors import UsageError
from jedi_toybox import renderer
from jedi_toybox.camera import Camera, basis, outline, random_camera
from jedi_toybox.clutter import clutter
from jedi_toybox.packing import Staged, pack
from jedi_toybox.parts import Material, Part
from jedi_toybox.scenes import SCENES, pack_scene

SIZE = 48
RED = Material(colors=((0.9, 0.1, 0.1),) * 3)
SUBJECT = [
    Part("box", (0.0, 0.45, 0.0), (0.25, 0.22, 0.18), RED, (0.0, 20.0, 0.0)),
    Part("ellipsoid", (0.0, 0.83, 0.0), (0.2, 0.17, 0.18), replace(RED, pattern="dots", scale=6.0)),
    Part("frustum", (-0.12, 0.12, 0.0), (0.08, 0.12, 0.08), replace(RED, pattern="marble"), taper=0.7),
    Part("frustum", (0.12, 0.12, 0.0), (0.08, 0.12, 0.08), replace(RED, pattern="emblem"), taper=0.7),
]


def stage(
    seed: int, scene: str | None = None, subject: list[Part] = SUBJECT, with_clutter: bool = True
) -> Staged:
    rng = np.random.default_rng(seed)
    name = scene or SCENES[seed % len(SCENES)]
    points = outline(SUBJECT)
    camera = random_camera(points, rng)
    around = clutter(name, rng) if with_clutter else []
    return Staged(
        subject, around, camera, points, pack_scene(name, rng), camera.azimuth + rng.uniform(-0.4, 0.4)
    )


def draw(staged: list[Staged], size: int = SIZE, supersample: int = 1) -> renderer.Drawn:
    return renderer.draw(pack(staged), size, supersample, compiled=False)


def surface_points(part: Part, count: int = 6000) -> np.ndarray:
    """Points all over a part's surface, with rotations written out again."""
    rng = np.random.default_rng(0)
    unit = rng.normal(size=(count, 3))
    if part.kind == "ellipsoid":
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    elif part.kind == "box":
        unit = rng.uniform(-1, 1, (count, 3))
        unit[np.arange(count), rng.integers(3, size=count)] = rng.choice([-1.0, 1.0], count)
    else:
        turn, y = rng.uniform(0, 2 * np.pi, count), rng.uniform(-1, 1, count)
        share = np.where(rng.random(count) < 0.5, 1.0, np.sqrt(rng.random(count)))
        y = np.where(share < 1, np.sign(y), y)
        radius = share * (1 + (part.taper - 1) * (y + 1) / 2)
        unit = np.stack([radius * np.cos(turn), y, radius * np.sin(turn)], axis=1)
    world = unit * np.array(part.size)
    for axis, angle in enumerate(np.radians(part.rotation)):
        a, b = ((1, 2), (2, 0), (0, 1))[axis]
        world[:, a], world[:, b] = (
            np.cos(angle) * world[:, a] - np.sin(angle) * world[:, b],
            np.sin(angle) * world[:, a] + np.cos(angle) * world[:, b],
        )
    return world + np.array(part.center)


def test_masks_are_where_the_parts_project() -> None:
    """The subject's surface points, put through the camera's own formula, cover the mask and nothing else."""
    staged = [stage(seed, with_clutter=False) for seed in range(6)]
    masks = draw(staged).masks
    for one, mask in zip(staged, masks, strict=True):
        covered = torch.zeros(SIZE, SIZE, dtype=torch.bool)
        for part in SUBJECT:
            place = (one.camera.project(surface_points(part)) * [1, -1] + 1) * SIZE / 2
            column, row = np.floor(place).astype(int).T
            covered[torch.from_numpy(row), torch.from_numpy(column)] = True
        wide = F.max_pool2d(covered[None].float(), 3, 1, 1)[0] > 0
        narrow = F.max_pool2d(1 - covered[None].float(), 3, 1, 1)[0] == 0
        assert mask.any()
        assert (mask & ~wide).sum() == 0
        # the gap between the legs is narrower than a pixel's neighbourhood
        assert (narrow & ~mask).sum() <= 0.02 * mask.sum()


def test_without_the_subject_only_mask_and_shadow_change() -> None:
    staged = [stage(seed, "on a checkered floor", with_clutter=False) for seed in range(4)]
    far_below = [replace(part, center=(0.0, -9.0, 0.0)) for part in SUBJECT]
    drawn, empty = draw(staged), draw([replace(one, subject=far_below) for one in staged])
    assert not empty.masks.any()
    change = (drawn.pictures - empty.pictures).abs().amax(dim=1)
    assert (change[drawn.masks] > 1 / 255).float().mean() > 0.9
    outside = (drawn.pictures - empty.pictures).permute(0, 2, 3, 1)[~drawn.masks]
    assert outside.max() < 1e-3  # shadow only darkens
    assert (outside.abs().amax(dim=1) < 1e-3).float().mean() > 0.6
    assert (outside.amin(dim=1) < -0.05).float().mean() > 0.01


def test_the_subject_casts_its_shadow_away_from_the_light() -> None:
    from jedi_toybox import backdrop

    staged = [stage(seed, "on a wooden floor", with_clutter=False) for seed in range(8)]
    packed = pack(staged)
    light = backdrop.light(packed.scenes)
    for n, direction in enumerate(light.direction):
        x, z = (-direction[c] / direction[1] * 0.5 for c in (0, 2))
        point = tuple(torch.full((1, 2), float(v)) for v in (0, 0, 0))
        point = (torch.stack([x, -2 * x])[None], point[1], torch.stack([z, -2 * z])[None])
        depth = renderer.shade_depth(packed.shapes[n : n + 1], point, light.direction[n : n + 1])
        assert depth[0, 0] > 0.05
        assert depth[0, 1] == 0


def test_a_picture_is_the_same_alone_and_in_any_order() -> None:
    staged = [stage(seed) for seed in range(5)]
    together, turned = draw(staged), draw(staged[::-1])
    for n, one in enumerate(staged):
        alone = draw([one])
        for a, b, c in zip(alone, together, turned, strict=True):
            assert torch.equal(a[0], b[n])
            assert torch.equal(b[n], c[len(staged) - 1 - n])


def test_pictures_are_numbers_in_range_and_the_global_seed_is_left_alone() -> None:
    before = torch.get_rng_state()
    drawn = draw([stage(seed) for seed in range(len(SCENES))], 32)
    assert torch.equal(before, torch.get_rng_state())
    assert drawn.pictures.isfinite().all()
    assert drawn.pictures.min() >= 0
    assert drawn.pictures.max() <= 1
    assert ((drawn.edges >= 0) & (drawn.edges <= 1)).all()
    assert 0.01 < drawn.edges.mean() < 0.4


def test_supersampling_averages_rays() -> None:
    staged = [stage(3)]
    fine, coarse = draw(staged, 96), draw(staged, SIZE, 2)
    torch.testing.assert_close(coarse.pictures, F.avg_pool2d(fine.pictures, 2), atol=1e-5, rtol=0)
    share = F.avg_pool2d(fine.masks[:, None].float(), 2)[:, 0]
    assert torch.equal(coarse.masks, share >= 0.5)


def test_too_many_parts_of_a_kind_are_refused() -> None:
    with pytest.raises(UsageError, match="subject has too many parts of kind 'box'"):
        pack([stage(0, subject=SUBJECT[:1] * 8)])


def test_the_camera_looks_at_its_target_from_its_azimuth() -> None:
    camera = Camera((3.0, 1.0, 0.0), (0.0, 0.5, 0.0), 0.3, (0.1, -0.2))
    assert camera.azimuth == pytest.approx(np.pi / 2)
    np.testing.assert_allclose(camera.project(np.array([[0.0, 0.5, 0.0]])), [[-0.1, 0.2]], atol=1e-9)
    # a point on the viewer's right (-z, seen from +x) appears on the right, a higher point higher
    right, up = camera.project(np.array([[0.0, 0.5, -0.1], [0.0, 0.6, 0.0]])) - [[-0.1, 0.2]]
    assert right[0] > 0
    assert up[1] > 0
    np.testing.assert_allclose(
        basis(np.array([1.0, -2.0, 0.5])) @ basis(np.array([1.0, -2.0, 0.5])).T, np.eye(3), atol=1e-12
    )


def test_outlines_hold_the_parts() -> None:
    for part in SUBJECT:
        points, surface = outline([part]), surface_points(part)
        extent = surface.max(axis=0) - surface.min(axis=0)
        np.testing.assert_allclose(points.max(axis=0), surface.max(axis=0), atol=0.06 * extent.max())
        np.testing.assert_allclose(points.min(axis=0), surface.min(axis=0), atol=0.06 * extent.max())


def grey_levels(pictures: Tensor) -> Tensor:
    return (pictures * 255).round()


@pytest.mark.slow
def test_compiled_pictures_equal_eager_ones() -> None:
    packed = pack([stage(seed) for seed in range(renderer.CHUNK)])
    plain, fast = (renderer.draw(packed, SIZE, 1, compiled) for compiled in (False, True))
    off = (grey_levels(plain.pictures) - grey_levels(fast.pictures)).abs()
    assert (off <= 1).float().mean() > 0.999
    assert (plain.masks == fast.masks).float().mean() > 0.9995
