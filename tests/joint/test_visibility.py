"""Masks and strengths of references against dense attention with all its biases, by family and coupling."""

import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from jedi_diffusion.backbones import family_of
from jedi_diffusion.backbones.base import Backbone
from jedi_diffusion.backbones.unet import UNetBackbone, make_joint
from jedi_diffusion.errors import UsageError
from jedi_diffusion.joint import selective
from jedi_diffusion.joint.attention import SetReads, coupled_attention
from jedi_diffusion.joint.cache import visible_tokens
from jedi_diffusion.joint.loss import JointLoss
from jedi_diffusion.joint.positions import distance_bias
from jedi_diffusion.joint.process import Diffusion, Flow
from jedi_diffusion.joint.record import AttentionRecord, attention_weights
from jedi_diffusion.joint.selective import selective_attention
from jedi_diffusion.sets import REFERENCE_TIMESTEP, SetBatch
from jedi_diffusion.visibility import KEPT_SHARE, DrawnVisibility, Visibility, VisibleTokens
from tests.helpers.small_mmdit import SD35_MEDIUM, mmdit_batch, tiny_sd3
from tests.helpers.small_models import (
    near_sd14_unet,
    random_batch,
    randomize_new_channels,
    small_sd14_unet,
    small_sdxl_unet,
)

STEP = 400
SIZES = (3, 1, 4, 2)
REFERENCES = (0, 2, 5, 6, 8, 9)


def square(top: int, bottom: int, left: int, right: int, side: int = 16, value: float = 1.0) -> Tensor:
    """A mask with a rectangle of the subject in it."""
    made = torch.zeros(side, side)
    made[top:bottom, left:right] = value
    return made


VISIBILITY: dict[int, Visibility] = {
    0: Visibility(square(0, 9, 3, 16)),
    2: Visibility(strength=0.3),
    5: Visibility(square(2, 5, 1, 4), strength=2.5),
    8: Visibility(square(0, 16, 0, 8), strength=0.5),
    9: Visibility(torch.ones(16, 16)),
}


def seen(batch: SetBatch, how: dict[int, Visibility] = VISIBILITY) -> SetBatch:
    return replace(batch, visibility=tuple(how.get(row) for row in range(len(batch.mask))))


def kept(mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """(L,) bool by the plain statement: means of blocks against the share, or the greatest mean."""
    rows, columns = (side // parts for side, parts in zip(mask.shape, grid, strict=True))
    means = mask.reshape(grid[0], rows, grid[1], columns).mean(dim=(1, 3)).flatten()
    return means >= min(KEPT_SHARE, means.max().item())


def key_bias(how: Visibility | None, grid: tuple[int, int]) -> Tensor:
    """(L,): what is added to scores of an image's keys by the others."""
    tokens = grid[0] * grid[1]
    if how is None:
        return torch.zeros(tokens)
    inside = torch.ones(tokens, dtype=torch.bool) if how.mask is None else kept(how.mask, grid)
    if isinstance(how, DrawnVisibility) and (drawn := how.at(grid, torch.device("cpu"))) is not None:
        inside = torch.isin(torch.arange(tokens), drawn.places)
    return torch.where(inside, math.log(how.strength), -math.inf)


def in_box(box: tuple[float, float, float, float], grid: tuple[int, int]) -> Tensor:
    """(L,) bool by counting points of a fine raster in each token."""
    fine = 64
    rows, columns = ((torch.arange(side * fine) + 0.5) / (side * fine) for side in grid)
    left, top, right, bottom = box
    covered = ((rows > top) & (rows < bottom))[:, None] & ((columns > left) & (columns < right))
    means = covered.float().reshape(grid[0], fine, grid[1], fine).mean(dim=(1, 3)).flatten()
    return means >= min(KEPT_SHARE, means.max().item())


def apart(own: Visibility | None, other: Visibility | None, grid: tuple[int, int]) -> Tensor:
    """(L, L) of queries and keys: what keeps regions and subjects apart."""
    made = torch.zeros(grid[0] * grid[1], grid[0] * grid[1])
    if own is not None and other is not None and own.subject != other.subject:
        made[:] = -math.inf
    if own is None and other is not None and other.box is not None:
        made[~in_box(other.box, grid)] = -math.inf
    if own is not None and own.box is not None and other is None:
        made[:, ~in_box(own.box, grid)] = -math.inf
    return made


@dataclass(frozen=True)
class DenseReads(SetReads):
    """Every image of the batch against every other in one softmax, with minus infinity where nothing is read.

    is_reference: the cached coupling. layers: those that couple.
    """

    def attend(self, layer, query, key, value, distance_slope=0.0, backend=None, private=None) -> Tensor:
        images, length, heads, width = key.shape
        height = self.grid[0]
        while height * (height * self.grid[1] // self.grid[0]) > length:
            height //= 2
        grid = height, height * self.grid[1] // self.grid[0]
        bias = torch.full((images, images, 1, length, length), -math.inf)
        near = (
            distance_bias(grid, heads, distance_slope) if distance_slope else torch.zeros(1, length, length)
        )
        bias = bias.expand(-1, -1, len(near), -1, -1).clone()
        sets = torch.arange(len(self.set_sizes)).repeat_interleave(torch.tensor(self.set_sizes))
        coupled, given = self.layers is None or layer in self.layers, self.is_reference
        for reader in range(images):
            for other in range(images):
                if reader == other:
                    bias[reader, other] = near
                elif coupled and sets[reader] == sets[other] and (given is None or given[other]):
                    own, how = (
                        None if self.visibility is None else self.visibility[row] for row in (reader, other)
                    )
                    bias[reader, other] = near + key_bias(how, grid) + apart(own, how, grid)
        made = []
        for reader in range(images):
            added = bias[reader].transpose(0, 1).transpose(1, 2).flatten(2)  # (heads, L, I * L)
            keys, values = key.flatten(0, 1), value.flatten(0, 1)
            if private is not None:
                text = torch.zeros(1, query.shape[1] - length, images, length)
                for other in range(images):  # text reads what its image reads, but nothing that has a box
                    row = bias[reader, other, :, :1].expand(-1, text.shape[1], -1).clone()
                    how = None if self.visibility is None else self.visibility[other]
                    own = None if self.visibility is None else self.visibility[reader]
                    if own is None and how is not None and how.box is not None:
                        row[:] = -math.inf
                    text[:, :, other] = row
                added = torch.cat([added, text.flatten(2)], dim=1)
                keys, values = torch.cat([keys, private[0][reader]]), torch.cat([values, private[1][reader]])
                added = torch.cat([added, torch.zeros(*added.shape[:2], private[0].shape[1])], dim=-1)
            scores = torch.einsum("lhd,thd->hlt", query[reader], keys) / math.sqrt(width) + added
            made.append(torch.einsum("hlt,thd->lhd", scores.softmax(-1), values))
        return torch.stack(made)


def dense_twin(backbone: Backbone, noisy: Tensor, time: Tensor, batch: SetBatch, coupling: str) -> Tensor:
    """One dense pass; with coupling "cached" references are clean, at their own time."""
    given, times = batch.is_reference, time.expand(len(noisy))
    cached = coupling == "cached"
    if cached:
        noisy = torch.where(given.view(-1, 1, 1, 1), batch.latents, noisy)
        times = torch.where(given, torch.tensor(REFERENCE_TIMESTEP, dtype=times.dtype), times)
    reads = DenseReads(
        batch.set_sizes,
        grid=(noisy.shape[2], noisy.shape[3]),
        is_reference=given if cached else None,
        visibility=batch.visibility,
        layers=backbone.coupled_layers,
    )
    return backbone.predict(noisy, times, replace(batch, visibility=None), reads)


def noise_like(latents: Tensor, seed: int = 1) -> Tensor:
    return torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed))


def unet(build):
    return lambda: UNetBackbone(randomize_new_channels(make_joint(build())))


def transformer(network) -> Backbone:
    family_of(network).couple(network)
    return family_of(network)(network)


FAMILIES = {
    "sd14": unet(small_sd14_unet),
    "sdxl": unet(small_sdxl_unet),
    "near": unet(near_sd14_unet),
    "sd3": lambda: transformer(tiny_sd3()),
    "sd3.5-medium": lambda: transformer(tiny_sd3(**SD35_MEDIUM)),
}
family = pytest.mark.parametrize("make", FAMILIES.values(), ids=FAMILIES)
coupling = pytest.mark.parametrize("coupling", ["joint", "cached"])


def ragged(backbone: Backbone) -> tuple[SetBatch, Tensor]:
    """Sets of several sizes, and a time in the family's units."""
    if isinstance(backbone, UNetBackbone):
        return random_batch(backbone.unet, SIZES, REFERENCES), torch.tensor(STEP)
    extents = [(8, 8)] * sum(SIZES)
    batch = mmdit_batch(SIZES, REFERENCES, extents)
    return batch, torch.tensor(0.7)


@torch.no_grad()
@family
@coupling
def test_masks_and_strengths_equal_dense_attention(make, coupling):
    backbone = make()
    batch, time = ragged(backbone)
    batch = seen(batch)
    noisy = noise_like(batch.latents)
    want = dense_twin(backbone, noisy, time, batch, coupling)
    got = backbone(noisy, time, batch, coupling)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=0)
    plain = backbone(noisy, time, replace(batch, visibility=None), coupling)
    assert (plain - got).abs().max() > 1e-3


APART = {
    0: Visibility(square(0, 9, 3, 16), box=(0, 0, 0.5, 1), subject=0),
    2: Visibility(strength=0.3, box=(0.3, 0.2, 1, 1), subject=1),
    5: Visibility(strength=2.5, box=(0.51, 0, 1, 0.4), subject=1),
    6: Visibility(box=(0, 0, 0.01, 0.01), subject=0),
    8: Visibility(subject=3),
    9: Visibility(square(2, 5, 1, 4), box=(0, 0, 1, 1), subject=0),
}
"""Subjects and the parts of targets that read them: overlapping, none, all, and smaller than any token."""


@torch.no_grad()
@family
@coupling
def test_regions_and_subjects_equal_dense_attention(make, coupling):
    backbone = make()
    batch, time = ragged(backbone)
    noisy = noise_like(batch.latents)
    batch = seen(batch, APART)
    want = dense_twin(backbone, noisy, time, batch, coupling)
    got = backbone(noisy, time, batch, coupling)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=0)
    everywhere = {row: replace(each, box=None, subject=None) for row, each in APART.items()}
    assert (backbone(noisy, time, seen(batch, everywhere), coupling) - got).abs().max() > 1e-3
    if coupling == "cached":
        cache = backbone.fill_cache(batch.select(list(REFERENCES), (2, 2, 2)))
        order = [7, 1, 4]
        view = cache.for_sets([1, 0, 1])
        beside = backbone(noisy[order], time, batch.select(order, (1, 1, 1)), "cached", view)
        torch.testing.assert_close(beside, want[order], atol=1e-5, rtol=0)


@torch.no_grad()
@family
@coupling
def test_the_loss_where_tokens_are_dropped_equals_that_of_dense_attention(make, coupling):
    backbone = make()
    batch, time = ragged(backbone)
    loss = JointLoss(Flow() if time.is_floating_point() else Diffusion(torch.linspace(0.99, 0.01, 1000)))
    dropped = seen(batch, {row: DrawnVisibility(share=0.3, seed=row) for row in REFERENCES})

    def dense(noisy, times, given, coupling):
        return dense_twin(backbone, noisy, times, given, coupling)

    draw = loss.draw(batch, torch.Generator().manual_seed(2), coupling)
    measured, want, whole = (
        loss.errors(denoiser, given, draw, coupling)
        for denoiser, given in ((backbone, dropped), (dense, dropped), (backbone, batch))
    )
    torch.testing.assert_close(measured, want, atol=1e-4, rtol=1e-4)
    assert (measured - whole).abs().max() > 1e-3


def test_drawn_tokens_are_a_share_of_every_grid_and_others_for_other_seeds():
    found = {
        (grid, seed): DrawnVisibility(share=0.25, seed=seed).at(grid, torch.device("cpu")).places.tolist()
        for grid in ((8, 8), (4, 6), (1, 2))
        for seed in (1, 2)
    }
    assert [len(found[grid, 1]) for grid in ((8, 8), (4, 6), (1, 2))] == [16, 6, 1]
    assert found[(8, 8), 1] != found[(8, 8), 2]
    assert all(each == sorted(set(each)) for each in found.values())
    assert DrawnVisibility(share=1.0).at((4, 4), torch.device("cpu")) is None
    with pytest.raises(UsageError, match="share is 0"):
        DrawnVisibility(share=0.0)


@torch.no_grad()
@family
def test_a_filled_cache_holds_what_is_read_alone_and_reads_the_same(make):
    """One fill serves branches with and without references, and targets of several sets."""
    backbone = make()
    batch, time = ragged(backbone)
    plain = backbone.fill_cache(batch.select(list(REFERENCES), (2, 2, 2)))
    batch = seen(batch)
    noisy = noise_like(batch.latents)
    want = dense_twin(backbone, noisy, time, batch, "cached")
    cache = backbone.fill_cache(batch.select(list(REFERENCES), (2, 2, 2)))
    order = [7, 3, 1, 4]
    view = cache.for_sets([1, None, 0, 1])
    got = backbone(noisy[order], time, batch.select(order, (1, 1, 1, 1)), "cached", view)
    torch.testing.assert_close(got, want[order], atol=1e-5, rtol=0)
    assert cache.nbytes < 0.8 * plain.nbytes


@torch.no_grad()
@family
@coupling
@pytest.mark.parametrize(
    "how", [{}, {0: Visibility(torch.ones(8, 8)), 9: Visibility()}], ids=["none", "whole"]
)
def test_whole_references_of_strength_1_change_no_bit(make, coupling, how):
    backbone = make()
    batch, time = ragged(backbone)
    noisy = noise_like(batch.latents)
    want = backbone(noisy, time, batch, coupling)
    assert torch.equal(backbone(noisy, time, seen(batch, how), coupling), want)


@torch.no_grad()
@family
@coupling
def test_layers_that_do_not_couple_read_each_image_alone(make, coupling):
    backbone = make()
    batch, time = ragged(backbone)
    noisy, batch = noise_like(batch.latents), seen(batch)
    backbone.coupled_layers = frozenset(backbone.attention_layers[1::2])
    want = dense_twin(backbone, noisy, time, batch, coupling)
    torch.testing.assert_close(backbone(noisy, time, batch, coupling), want, atol=1e-5, rtol=0)
    backbone.coupled_layers = frozenset()
    alone = backbone(noisy, time, batch, coupling)
    rows = [1, 3, 4, 7]
    want = backbone(noisy[rows], time, replace(batch, visibility=None).select(rows, (1,) * 4))
    torch.testing.assert_close(alone[rows], want, atol=1e-5, rtol=0)


@family
def test_layers_are_named_by_parts_of_their_names_and_by_numbers_in_the_order_they_run(make):
    backbone, run = make(), []

    @dataclass(frozen=True)
    class Named(SetReads):
        def attend(self, layer, *tokens, **how):
            run.append(layer)
            return super().attend(layer, *tokens, **how)

    batch, time = ragged(backbone)
    with torch.no_grad():
        backbone.predict(batch.latents, time, batch, Named(batch.set_sizes, grid=(8, 8)))
    assert backbone.attention_layers == run
    last = run[-1].rpartition(".")[0]
    for chosen, want in {
        "0": run[:1],
        "-2:": run[-2:],
        "1:3": run[1:3],
        " -1 , 0 ": [run[0], run[-1]],
        run[1]: [run[1]],
        last: [name for name in run if name.startswith(last + ".")],
    }.items():
        assert backbone.layers_named(chosen) == frozenset(want)
    assert backbone.layers_named("all") is None
    for wrong in ("", "99", "-99", "5:5", "no_such", run[0][:-1], "0,,1", "1:2:3"):
        with pytest.raises(UsageError, match="attention layers of this model are called"):
            backbone.layers_named(wrong)


def test_up_is_the_upper_half_of_a_unet_and_of_nothing_else():
    backbone = FAMILIES["sd14"]()
    up = backbone.layers_named("up")
    assert up == frozenset(name for name in backbone.attention_layers if name.startswith("up_blocks."))
    assert len(up) == 9
    assert {".".join(name.split(".")[:2]) for name in backbone.layers_named("-6:")} == {
        "up_blocks.2",
        "up_blocks.3",
    }
    with pytest.raises(UsageError, match=r"names 'up', but the 3 attention layers of this model are called"):
        FAMILIES["sd3"]().layers_named("up")


def test_gradients_reach_what_is_read_of_a_reference_and_nothing_else():
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 4, 2, 8, generator=generator).requires_grad_() for _ in range(3))
    visible = [VisibleTokens(torch.tensor([1, 2]), 0.0), None]
    selective_attention(query, key, value, (2,), visible)[1].sum().backward()
    touched = value.grad.abs().sum(dim=(2, 3)) > 0
    assert touched.tolist() == [[False, True, True, False], [True] * 4]


def test_in_one_masked_pass_references_read_themselves_and_targets_read_parts_of_them():
    """Against calls of each image with what it reads; image 0 is a reference of which two tokens are read."""
    query, key, value = torch.randn(3, 3, 4, 2, 8, generator=torch.Generator().manual_seed(0)).unbind()
    visible = [VisibleTokens(torch.tensor([0, 3]), 0.0), None, None]
    flags = torch.tensor([True, False, False])
    got = selective_attention(query, key, value, (3,), visible, is_reference=flags)
    torch.testing.assert_close(got[:1], coupled_attention(query[:1], key[:1], value[:1], (1,)))
    for target in (1, 2):
        keys, values = (torch.cat([each[0, [0, 3]], each[target]]).transpose(0, 1) for each in (key, value))
        want = scaled_dot_product_attention(query[target].transpose(0, 1), keys, values).transpose(0, 1)
        torch.testing.assert_close(got[target], want)


def test_the_implementation_that_is_asked_for_computes_parts_too(monkeypatch):
    used, real = [], selective.dispatch_attention_fn

    def spy(*args, backend=None, **options):
        used.append(backend)
        return real(*args, backend=backend, **options)

    monkeypatch.setattr(selective, "dispatch_attention_fn", spy)
    tokens = torch.randn(2, 4, 2, 8, generator=torch.Generator().manual_seed(0))
    visible = [VisibleTokens(torch.tensor([1]), 0.0), None]
    selective_attention(tokens, tokens, tokens, (2,), visible, backend="_native_math")
    assert used == ["_native_math"] * 2


def test_what_others_read_of_images_is_gathered_in_order():
    keys = torch.arange(8.0).view(2, 4, 1, 1)
    read = visible_tokens(keys.unbind(), (-keys).unbind(), [VisibleTokens(torch.tensor([1, 3]), 0.5), None])
    assert read.keys.flatten().tolist() == [1, 3, 4, 5, 6, 7]
    assert torch.equal(read.values, -read.keys)
    assert read.places.tolist() == [1, 3, 4, 5, 6, 7]
    assert read.bias.tolist() == [0.5, 0.5, 0, 0, 0, 0]
    assert read.total == 8


@torch.no_grad()
@pytest.mark.parametrize("kind", ["joint", "cached"])
@pytest.mark.parametrize("build", [small_sd14_unet, near_sd14_unet])
def test_recorded_attention_is_that_of_the_masked_softmax(kind, build):
    """Tokens that are not read get no weight; rows sum to 1; against weights with the bias written out."""
    backbone = unet(build)()
    batch = seen(random_batch(backbone.unet, (3,), (0, 1)), {0: VISIBILITY[0], 1: VISIBILITY[5]})
    targets, view = batch, None
    if kind == "cached":
        view = backbone.fill_cache(batch.select([0, 1], (2,))).for_sets([0])
        targets = batch.select([2], (1,))
    noisy = noise_like(targets.latents)
    asked = {}

    @dataclass(frozen=True)
    class Watched(SetReads):
        def attend(self, layer, query, key, value, slope=0.0, backend=None, private=None):
            asked.setdefault(query.shape[1], []).append((query, key, slope))
            return super().attend(layer, query, key, value, slope, backend, private)

    record = AttentionRecord((0.3, 0.6))
    writer = record.writer(0, [len(noisy) - 1], (8, 8))
    sizes = (1,) if kind == "cached" else (3,)
    reads = Watched(sizes, view, writer, (8, 8), visibility=targets.visibility)
    backbone.predict(noisy, STEP, targets, reads)
    for found in record.maps():
        weights = found.weights.flatten(2)
        inside = torch.stack([kept(VISIBILITY[n].mask, found.size) for n in (0, 5)])
        assert bool((weights[:, :2][:, ~inside] == 0).all())
        torch.testing.assert_close(weights.sum((1, 2)), torch.ones(len(weights)))
        if kind == "joint":
            query, key, slope = asked[len(inside[0])][0]
            heads = query.shape[2]
            bias = torch.cat([key_bias(VISIBILITY[n], found.size) for n in (0, 5)])
            bias = torch.cat([bias, torch.zeros(key.shape[1])]).expand(heads, key.shape[1], -1)
            if slope:
                bias = bias + distance_bias(found.size, heads, slope).repeat(1, 1, 3)
            tokens = list(found.tokens)
            per_layer = [
                attention_weights(q[2, tokens], k.flatten(0, 1), bias[:, tokens])
                for q, k, _ in asked[len(inside[0])]
            ]
            torch.testing.assert_close(weights.flatten(1), torch.stack(per_layer).mean(0), atol=1e-6, rtol=0)


def test_a_token_is_read_where_the_mask_covers_half_of_it():
    mask = square(0, 4, 0, 3, side=8)  # of the 4 x 4 tokens one whole, one half in each of two rows
    assert Visibility(mask).at((4, 4), torch.device("cpu")).places.tolist() == [0, 1, 4, 5]
    assert Visibility(mask * 0.6).at((4, 4), torch.device("cpu")).places.tolist() == [0, 4]


def test_a_subject_smaller_than_any_token_keeps_those_that_it_covers_most():
    mask = square(2, 3, 2, 3, side=16)
    assert Visibility(mask).at((2, 2), torch.device("cpu")).places.tolist() == [0]
    assert Visibility(mask + mask.rot90(2)).at((2, 2), torch.device("cpu")).places.tolist() == [0, 3]


def test_a_mask_that_covers_everything_is_none():
    assert Visibility(torch.ones(4, 4)).at((2, 2), torch.device("cpu")) is None
    made = Visibility(torch.ones(4, 4), 2.0).at((2, 2), torch.device("cpu"))
    assert made == VisibleTokens(None, math.log(2))


@pytest.mark.parametrize("strength", [0, -1, math.nan, math.inf])
def test_a_strength_that_is_no_number_above_0_is_refused(strength):
    with pytest.raises(UsageError, match=r"strength is .*, but must be greater than 0"):
        Visibility(strength=strength)


def test_an_empty_mask_is_refused():
    with pytest.raises(UsageError, match="A mask is empty"):
        Visibility(torch.zeros(4, 4))


def test_visibility_is_one_entry_an_image_and_travels_with_it():
    batch = mmdit_batch((2, 1), (0,))
    with pytest.raises(UsageError, match="has 1 entries for 3 pictures"):
        replace(batch, visibility=(None,))
    how = Visibility(strength=2.0)
    batch = replace(batch, visibility=(how, None, None))
    assert batch.select([1, 0], (2,)).visibility == (None, how)
    plain = replace(batch, visibility=None)
    assert SetBatch.concatenate([plain, batch]).visibility == (None, None, None, how, None, None)
    assert SetBatch.concatenate([plain, plain]).visibility is None


def test_a_cache_of_parts_is_refused_at_another_size():
    backbone = unet(small_sd14_unet)()
    batch = seen(random_batch(backbone.unet, (2,), (0, 1)), {0: VISIBILITY[0]})
    view = backbone.fill_cache(batch).for_sets([0])
    large = random_batch(backbone.unet, (1,), size=16)
    with pytest.raises(UsageError, match="picture size, dtype and device must agree"):
        backbone(large.latents, STEP, large, "cached", view)


def test_parts_are_read_with_a_strength_that_counts_tokens_twice():
    """Strength 2 is the same as the reference given twice."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, 2, 8, generator=generator).unbind()
    visible = [VisibleTokens(None, math.log(2)), None]
    twice = [each[[0, 0, 1]] for each in (query, key, value)]
    got = selective_attention(query, key, value, (2,), visible)[1]
    torch.testing.assert_close(got, coupled_attention(*twice, (3,))[2])
