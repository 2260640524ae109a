"""FreeCustom's attention against a plain loop over tokens, and what it refuses."""

import pytest
import torch
from torch import Tensor

from jedi_diffusion.backbones.unet import UNetBackbone, make_joint
from jedi_diffusion.errors import UsageError
from jedi_diffusion.joint.attention import coupled_attention
from jedi_diffusion.joint.positions import distance_bias
from jedi_diffusion.joint.record import AttentionRecord
from jedi_diffusion.methods.free_custom import MultiReferenceDenoiser, MultiReferenceReads
from tests.helpers.small_models import random_batch, randomize_new_channels, tiny_unet

GIVEN = torch.tensor([True, True, False, False, True, False])
SIZES = (3, 1, 2)


def tokens(seed: int) -> list[Tensor]:
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(6, 4, 2, 8, generator=random) for _ in range(3)]


def one_query(image: int, place: int, head: int, weight: float, parts: list[Tensor]) -> Tensor:
    """What a token reads, its scores written out one key at a time (section 3.2 of FreeCustom)."""
    query, key, value = parts
    start = next(sum(SIZES[:s]) for s in range(3) if image < sum(SIZES[: s + 1]))
    members = range(start, start + SIZES[[0, 3, 4].index(start)])
    scores, values = [], []
    for other in members:
        added = 0.0 if other == image else weight
        if other != image and (GIVEN[image] or not GIVEN[other]):
            continue
        for each in range(4):
            scores.append(query[image, place, head] @ key[other, each, head] / 8**0.5 + added)
            values.append(value[other, each, head])
    return torch.stack(scores).softmax(0) @ torch.stack(values)


def test_targets_read_references_with_raised_scores_and_references_themselves_alone() -> None:
    parts = tokens(1)
    reads = MultiReferenceReads(SIZES, is_reference=GIVEN, layers=frozenset({"late"}), weight=3.0)
    mixed = reads.attend("late", *parts)
    expected = torch.stack(
        [
            torch.stack([torch.stack([one_query(i, p, h, 3.0, parts) for h in range(2)]) for p in range(4)])
            for i in range(6)
        ]
    )
    torch.testing.assert_close(mixed, expected)
    torch.testing.assert_close(reads.attend("early", *parts), coupled_attention(*parts, (1,) * 6))


def test_near_tokens_are_preferred_in_every_image() -> None:
    """At weight 0 and with a slope, a target and its references are the cached coupling's masked pass."""
    parts = [each[:2] for each in tokens(2)]
    given = torch.tensor([True, False])
    reads = MultiReferenceReads((2,), grid=(2, 2), is_reference=given, layers=frozenset({"late"}))
    bias = distance_bias((2, 2), 2, 1.5, parts[0].device)
    apart = MultiReferenceReads((2,), grid=(2, 2)).attend("late", *parts, distance_slope=1.5)
    mixed = reads.attend("late", *parts, distance_slope=1.5)
    expected = coupled_attention(*parts, (2,), bias=bias)
    torch.testing.assert_close(mixed[1], expected[1])
    torch.testing.assert_close(mixed[0], apart[0])


def test_without_layers_a_target_is_as_it_is_alone() -> None:
    backbone = UNetBackbone(randomize_new_channels(make_joint(tiny_unet())))
    batch = random_batch(backbone.unet, (2,), references=(0,))
    noisy = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(1))
    time, layers = torch.tensor(5), frozenset(backbone.attention_layers[-2:])
    with torch.no_grad():
        alone = backbone(noisy, time, random_batch(backbone.unet, (1, 1)))
        none = MultiReferenceDenoiser(backbone, frozenset(), 3.0)(noisy, time, batch)
        some = MultiReferenceDenoiser(backbone, layers, 3.0)(noisy, time, batch)
    torch.testing.assert_close(none, alone)
    torch.testing.assert_close(some[0], alone[0])
    assert not torch.allclose(some[1], alone[1], atol=1e-4)
    denoiser = MultiReferenceDenoiser(backbone, frozenset(), 3.0)
    with pytest.raises(UsageError, match="coupling 'joint'"):
        denoiser(noisy, time, batch, "cached")
    with pytest.raises(UsageError, match="records no attention"):
        denoiser(noisy, time, batch, attention_record=AttentionRecord((0.5, 0.5)).writer(0, [1], (4, 4)))
