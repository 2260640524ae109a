"""What may change without another identity, and impostors, who have the colours and not the shape."""

import pytest
import torch

from jedi_toybox.augmentation import blur, impostors, recolored, vary

SIDE = 64


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def squares(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """White squares on black, and their masks."""
    pictures = torch.zeros(count, 3, SIDE, SIDE)
    pictures[:, :, 20:44, 24:48] = 1
    return pictures, pictures[:, 0].clone()


def test_variation_keeps_range_shape_and_mask_in_step() -> None:
    pictures, masks = squares(16)
    changed, moved = vary(pictures, masks, torch.Generator().manual_seed(0))
    assert changed.shape == pictures.shape
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert ((changed.mean(1) > 0.5) == (moved > 0.5)).float().mean() > 0.97
    assert not torch.equal(moved[0], moved[1])
    again, _ = vary(pictures, masks, torch.Generator().manual_seed(0))
    assert torch.equal(again, changed)
    assert pictures.max() == masks.max() == 1  # the originals are left alone


def test_blur_is_a_gaussian() -> None:
    point = torch.zeros(1, 3, 21, 21)
    point[:, :, 10, 10] = 1
    spread = blur(point, 1.5)[0, 0]
    places = torch.arange(21.0) - 10
    assert spread.sum().item() == pytest.approx(1, abs=1e-5)
    assert (spread.sum(0) * places**2).sum().sqrt().item() == pytest.approx(1.5, rel=0.02)


def test_recolored_subjects_have_the_models_colours_and_their_own_surroundings() -> None:
    pictures, models = random(2, 3, SIDE, SIDE) * 0.2 + 0.4, random(2, 3, SIDE, SIDE, seed=1) * 0.3 + 0.2
    masks, model_masks = squares(2)[1], squares(2)[1].roll(10, 1)
    changed = recolored(pictures, masks, models, model_masks)
    inside = masks[:, None].expand_as(pictures) > 0.5
    assert torch.equal(changed[~inside], pictures[~inside])
    for picture in range(2):
        for color in range(3):
            found = changed[picture, color][masks[picture] > 0.5]
            wanted = models[picture, color][model_masks[picture] > 0.5]
            assert found.mean().item() == pytest.approx(wanted.mean().item(), abs=1e-4)
            assert found.std(correction=0).item() == pytest.approx(wanted.std(correction=0).item(), rel=1e-3)


def test_impostors_are_blobs_bent_pictures_and_others_in_the_same_colours() -> None:
    pictures, masks = squares(9)
    pictures = pictures * torch.linspace(0.3, 1, 9).view(-1, 1, 1, 1)
    made = impostors(pictures, masks, torch.Generator().manual_seed(0))
    steps = (made[:, 0, :, 1:] - made[:, 0, :, :-1]).abs().amax((1, 2)) / pictures.amax((1, 2, 3))
    changed = (made - pictures).abs().amax((1, 2, 3)) > 0.02
    blobs = steps < 0.2
    others = ~changed  # equal squares of one colour: in each other's colour they are each other
    assert blobs.sum() == others.sum() == 3
    assert (changed & ~blobs).sum() == 3
    torch.testing.assert_close(made[blobs].mean((2, 3)), pictures[blobs].mean((2, 3)), atol=2e-3, rtol=0)
