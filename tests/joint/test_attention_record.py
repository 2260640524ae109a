"""Recorded attention against a dense softmax over the whole batch, in both couplings; what is asked."""

from itertools import pairwise

import pytest
import torch

from jedi_diffusion.backbones.unet import UNetBackbone, make_joint
from jedi_diffusion.errors import UsageError
from jedi_diffusion.joint.attention import SetReads
from jedi_diffusion.joint.record import GRID, AttentionMap, AttentionRecord, asked_tokens, attention_weights
from jedi_diffusion.sets import REFERENCE_TIMESTEP
from tests.helpers.small_models import (
    SLOPE,
    distances,
    near_sd14_unet,
    random_batch,
    randomize_new_channels,
    small_sd14_unet,
    small_sdxl_unet,
)

BUILDERS = {"sd14": small_sd14_unet, "sdxl": small_sdxl_unet, "near": near_sd14_unet}
STEP = 400
POINT = (0.7, 0.2)

# Two references and a target, a lone target, three references and a target: sizes differ in one batch.
SIZES = (3, 1, 4)
REFERENCES = (0, 1, 4, 5, 6)
TARGETS = (2, 3, 7)


@pytest.fixture(params=BUILDERS.values(), ids=BUILDERS.keys())
def denoiser(request):
    return UNetBackbone(randomize_new_channels(make_joint(request.param())))


def noise_like(latents, seed=1):
    return torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed))


def self_attention(unet):
    return {name: each for name, each in unet.named_modules() if name.endswith("attn1")}


def dense(unet, run, sees):
    """Every layer's attention as one softmax over all tokens of the batch, those not seen at minus infinity.

    sees (I, I) bool: which pictures a picture sees. Returns {L: mean over heads and layers (I, L, I, L)}.
    """
    inputs = {}
    hooks = [
        attn.register_forward_pre_hook(lambda _, given, name=name: inputs.update({name: given[0]}))
        for name, attn in self_attention(unet).items()
    ]
    run()
    for hook in hooks:
        hook.remove()
    found = {}
    for name, attn in self_attention(unet).items():
        pictures, tokens, _ = inputs[name].shape
        every = inputs[name].flatten(0, 1)
        q, k = (layer(every).view(len(every), attn.heads, -1) for layer in (attn.to_q, attn.to_k))
        scores = torch.einsum("qhd,khd->hqk", q, k) / q.shape[-1] ** 0.5
        if attn.processor.distance_slope:
            apart = distances(int(tokens**0.5), int(tokens**0.5)).repeat(pictures, pictures)
            for head in range(attn.heads - 1):
                scores[head] -= SLOPE / 2**head * apart
        allowed = sees.repeat_interleave(tokens, 0).repeat_interleave(tokens, 1)
        scores = scores.masked_fill(~allowed, -torch.inf)
        weights = torch.exp(scores - torch.logsumexp(scores, -1, keepdim=True)).mean(0)
        found.setdefault(tokens, []).append(weights.view(pictures, tokens, pictures, tokens))
    return {tokens: torch.stack(each).mean(0) for tokens, each in found.items()}


def blocks(sizes):
    return torch.block_diag(*(torch.ones(size, size) for size in sizes)).bool()


def check(record, expected, seen):
    """seen: for each target its number in the batch and those of the pictures that it sees, in order."""
    for target, (row, pictures) in enumerate(seen):
        maps = record.maps(target)
        assert [len(each.weights[0, 0].flatten()) for each in maps] == sorted(expected, reverse=True)
        for each in maps:
            tokens = each.size[0] * each.size[1]
            want = expected[tokens][row, list(each.tokens)][:, list(pictures)]
            assert each.weights.shape == (len(each.tokens), len(pictures), *each.size)
            torch.testing.assert_close(each.weights.flatten(2), want, rtol=0, atol=1e-5)
            torch.testing.assert_close(each.weights.sum((1, 2, 3)), torch.ones(len(each.tokens)))
            assert pictures[each.own] == row
            assert each.tokens[0] == int(0.2 * each.size[0]) * each.size[1] + int(0.7 * each.size[1])


@torch.no_grad()
def test_joint_coupling_equals_the_dense_form_and_changes_nothing(denoiser):
    batch = random_batch(denoiser.unet, SIZES, REFERENCES)
    noisy = noise_like(batch.latents)
    plain = denoiser(noisy, STEP, batch)
    record = AttentionRecord(POINT)
    recorded = denoiser(noisy, STEP, batch, attention_record=record.writer(0, TARGETS, (8, 8)))
    assert torch.equal(plain, recorded)
    expected = dense(denoiser.unet, lambda: denoiser(noisy, STEP, batch), blocks(SIZES))
    check(record, expected, [(2, (0, 1, 2)), (3, (3,)), (7, (4, 5, 6, 7))])
    layers = sum(each.layers for each in record.maps())
    assert layers == len(self_attention(denoiser.unet))


@torch.no_grad()
def test_cached_coupling_equals_the_dense_form_of_one_masked_pass(denoiser):
    batch = random_batch(denoiser.unet, SIZES, REFERENCES)
    noisy, given = noise_like(batch.latents), batch.is_reference
    cache = denoiser.fill_cache(batch.select(list(REFERENCES), (2, 3)))
    targets, view = batch.select(list(TARGETS), (1, 1, 1)), cache.for_sets([0, None, 1])
    plain = denoiser(noisy[list(TARGETS)], STEP, targets, "cached", view)
    record = AttentionRecord(POINT)
    writer = record.writer(0, (0, 1, 2), (8, 8))
    recorded = denoiser(noisy[list(TARGETS)], STEP, targets, "cached", view, writer)
    assert torch.equal(plain, recorded)

    def masked_pass():
        sets = torch.where(given.view(-1, 1, 1, 1), batch.latents, noisy)
        denoiser.unet(
            torch.cat([sets, batch.mask.expand(-1, 1, 8, 8), batch.reference_latents], dim=1),
            torch.where(given, REFERENCE_TIMESTEP, STEP), batch.text,
            added_cond_kwargs={
                "text_embeds": batch.conditions.get("pooled_text"),
                "time_ids": batch.conditions.get("time_ids"),
            },
            cross_attention_kwargs={"reads": SetReads(SIZES, is_reference=given, grid=(8, 8))},
        )  # fmt: skip

    sees = blocks(SIZES) & (given[None, :] | torch.eye(8, dtype=torch.bool))
    check(record, dense(denoiser.unet, masked_pass, sees), [(2, (0, 1, 2)), (3, (3,)), (7, (4, 5, 6, 7))])


@torch.no_grad()
def test_steps_are_averaged_and_others_left_out():
    denoiser = UNetBackbone(randomize_new_channels(make_joint(small_sd14_unet())))
    batch = random_batch(denoiser.unet, (2,), (0,))
    steps = {0: 900, 1: 600, 2: 300}
    both = AttentionRecord(POINT, steps=range(1, 3))
    alone = {step: AttentionRecord(POINT) for step in steps}
    for step, timestep in steps.items():
        for record in (both, alone[step]):
            denoiser(batch.latents, timestep, batch, attention_record=record.writer(step, (1,), (8, 8)))
    for got, one, two in zip(both.maps(), alone[1].maps(), alone[2].maps(), strict=True):
        torch.testing.assert_close(got.weights, (one.weights + two.weights) / 2, rtol=0, atol=1e-6)
        assert got.steps == 2
        assert got.layers == one.layers


def test_a_layer_is_a_mean_over_heads():
    draw = torch.Generator().manual_seed(0)
    query, key = torch.randn(5, 3, 8, generator=draw), torch.randn(11, 3, 8, generator=draw)
    want = torch.stack([torch.exp(query[:, h] @ key[:, h].T / 8**0.5) for h in range(3)])
    want = (want / want.sum(-1, keepdim=True)).mean(0)
    torch.testing.assert_close(attention_weights(query, key), want, rtol=0, atol=1e-6)


def test_correspondences_are_the_strongest_mutual_choices():
    """By brute force over all pairs; a token that all look at is the answer of one."""
    weights = torch.rand(1 + 16, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    weights[9:, 1, 0, 0] = torch.linspace(1, 2, 8)  # what half of them look at, token 15 most
    weights[1:, 2] += 5  # the target itself is not asked for
    each = AttentionMap((4, 4), (0, *range(16)), weights, own=2, layers=1, steps=1)
    rows = weights[1:, :2].reshape(16, 32)
    pairs = [
        (float(rows[q, k]), q, k)
        for q in range(16)
        for k in range(32)
        if rows[q, k] == rows[q].max() and rows[q, k] == rows[:, k].max()
    ]
    want = [(q, k // 16, k % 16, weight) for weight, q, k in sorted(pairs, reverse=True)]
    assert [tuple(found) for found in each.correspondences((0, 1), 99)] == want
    assert len(want) > 3
    assert want[0][:3] == (15, 1, 0)
    assert len(each.correspondences((0, 1), 1)) == 1
    swapped = AttentionMap((4, 4), (0, *range(16)), weights[:, [1, 0, 2]], own=2, layers=1, steps=1)
    assert swapped.correspondences((1,), 99) == [
        found._replace(picture=1) for found in each.correspondences((0,), 99)
    ]


@pytest.mark.parametrize(
    ("point", "first"), [((0, 0), 0), ((1, 1), 35), ((0.5, 0.5), 2 * 9 + 4), ((0.999, 0), 8)]
)
def test_the_token_under_a_point(point, first):
    tokens = asked_tokens(point, (4, 9))
    assert tokens[0] == first
    assert tokens[1:] == tuple(range(36))


@pytest.mark.parametrize("side", [16, 17, 24, 32, 64, 96, 128])
def test_fine_grids_are_asked_at_regular_places(side):
    rows = sorted({token // side for token in asked_tokens((0.5, 0.5), (side, side))[1:]})
    apart = {b - a for a, b in pairwise(rows)}
    assert len(rows) <= GRID
    assert len(apart) == 1
    assert abs((side - 1 - rows[-1]) - rows[0]) <= 1


def test_misuse_is_refused():
    for point in ((-0.1, 0.5), (0.5, 1.01), (float("nan"), 0.5)):
        with pytest.raises(UsageError, match="outside"):
            AttentionRecord(point)
    record = AttentionRecord(POINT, steps=[3])
    assert record.writer(0, (0,), (8, 8)) is None
    with pytest.raises(UsageError, match="already holds"):
        record.writer(0, (0,), (8, 8))
    with pytest.raises(UsageError, match="target 0"):
        record.maps()
    query = torch.zeros(2, 4, 1, 8)
    with pytest.raises(UsageError, match="no target in row 2"):
        record.writer(3, (2,), (2, 2)).store("layer", query, query, (2,), None)


def test_training_passes_are_not_recorded():
    denoiser = UNetBackbone(make_joint(small_sd14_unet()))
    batch = random_batch(denoiser.unet, (2,), (0,))
    with pytest.raises(UsageError, match="filled cache"):
        denoiser(
            batch.latents,
            STEP,
            batch,
            "cached",
            attention_record=AttentionRecord(POINT).writer(0, (1,), (8, 8)),
        )
