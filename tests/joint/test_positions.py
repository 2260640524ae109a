"""Places of tokens, and attention that prefers near ones, against loops over heads, sets and tokens.

Letters: I pictures; L tokens a picture; H heads; D features a head.
"""

from dataclasses import replace

import pytest
import torch

from jedi_diffusion.backbones.unet import (
    UNetBackbone,
    coupled_slope,
    install_coupling,
    make_joint,
    remove_coupling,
)
from jedi_diffusion.errors import ModelError, UsageError
from jedi_diffusion.joint.attention import SetReads, coupled_attention
from jedi_diffusion.joint.positions import distance_bias, token_grid
from tests.helpers.small_models import (
    SLOPE,
    distances,
    near_sd14_unet,
    random_batch,
    randomize_new_channels,
    small_sd14_unet,
    tiny_unet,
)  # fmt: skip

SIZES = (3, 1, 2)


def test_grids_follow_the_halvings_of_a_unet():
    assert token_grid((16, 16), 256) == (16, 16)
    assert token_grid((12, 20), 60) == (6, 10)
    assert token_grid((5, 7), 2 * 2) == (2, 2)
    assert token_grid((5, 7), 1) == (1, 1)
    with pytest.raises(UsageError, match="100 tokens"):
        token_grid((16, 16), 100)


@pytest.mark.parametrize("size", [(4, 4), (2, 5), (1, 1)])
def test_bias_is_a_slope_times_the_distance_on_the_grid(size):
    bias = distance_bias(size, heads=4, slope=2.0)
    apart = distances(*size)
    for head, slope in enumerate((2.0, 1.0, 0.5, 0.0)):
        torch.testing.assert_close(bias[head], -slope * apart)


def looped(query, key, value, set_sizes, bias, sees):
    """Attention one query and head at a time; sees (I, I): which pictures of its set a picture sees."""
    output, start = torch.zeros_like(query), 0
    for size in set_sizes:
        members = range(start, start + size)
        start += size
        for picture in members:
            seen = [other for other in members if sees[picture, other]]
            for token in range(query.shape[1]):
                for head in range(query.shape[2]):
                    scores = torch.cat([
                        key[other, :, head] @ query[picture, token, head] / query.shape[3] ** 0.5
                        + bias[head, token]
                        for other in seen
                    ])  # fmt: skip
                    values = torch.cat([value[other, :, head] for other in seen])
                    output[picture, token, head] = scores.softmax(0) @ values
    return output


@pytest.fixture
def tokens():
    """Queries, keys and values (6, 6, 3, 4) of pictures with 2 x 3 tokens."""
    return torch.randn(3, 6, 6, 3, 4, generator=torch.Generator().manual_seed(0)).unbind()


def test_biased_attention_of_ragged_sets(tokens):
    bias = distance_bias((2, 3), heads=3, slope=1.5)
    want = looped(*tokens, SIZES, bias, torch.ones(6, 6, dtype=torch.bool))
    torch.testing.assert_close(coupled_attention(*tokens, SIZES, bias=bias), want, atol=1e-5, rtol=0)
    assert not torch.allclose(coupled_attention(*tokens, SIZES), want, atol=1e-2)


def test_biased_attention_with_a_mask_and_with_a_cache(tokens):
    bias = distance_bias((2, 3), heads=3, slope=1.5)
    given = torch.tensor([True, True, False, False, True, False])
    sees = given[None, :] | torch.eye(6, dtype=torch.bool)
    want = looped(*tokens, SIZES, bias, sees)
    masked = coupled_attention(*tokens, SIZES, is_reference=given, bias=bias)
    torch.testing.assert_close(masked, want, atol=1e-5, rtol=0)
    targets = [part[~given] for part in tokens]
    pairs = [(tokens[1][:2], tokens[2][:2]), None, (tokens[1][4:5], tokens[2][4:5])]
    cached = coupled_attention(*targets, (1, 1, 1), pairs, bias=bias)
    torch.testing.assert_close(cached, want[~given], atol=1e-5, rtol=0)


def test_a_reference_of_the_same_place_is_found_untrained():
    """Where keys tell nothing, a token takes the value at its own place in both pictures of the set."""
    query = torch.zeros(2, 16, 2, 16)
    value = torch.eye(16).view(1, 16, 1, 16).expand(2, 16, 2, 16)
    mixed = coupled_attention(query, query, value, (2,), bias=distance_bias((4, 4), heads=2, slope=8.0))
    assert (mixed[:, :, 0].argmax(-1) == torch.arange(16)).all()
    assert mixed[:, :, 0].amax(-1).min() > 0.99
    torch.testing.assert_close(mixed[:, :, 1], torch.full((2, 16, 16), 1 / 16))


@torch.no_grad()
def test_a_slope_of_zero_is_the_stock_unet_bit_for_bit():
    stock, unet = small_sd14_unet(), install_coupling(near_sd14_unet(), 0.0)
    batch = random_batch(stock, (1, 1))
    settings = {"reads": SetReads((1, 1), grid=(8, 8))}
    want = stock(batch.latents, 10, batch.text).sample
    assert torch.equal(unet(batch.latents, 10, batch.text, cross_attention_kwargs=settings).sample, want)


@torch.no_grad()
def test_a_unet_keeps_its_slope_until_it_is_given_another():
    unet = near_sd14_unet()
    assert coupled_slope(unet) == coupled_slope(make_joint(unet)) == SLOPE
    assert coupled_slope(install_coupling(unet, 0.5)) == 0.5
    assert coupled_slope(remove_coupling(unet)) == 0
    assert coupled_slope(make_joint(unet)) == 0
    for slope in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ModelError, match="distance_slope"):
            install_coupling(unet, slope)


@torch.no_grad()
def test_pictures_need_not_be_square():
    denoiser = UNetBackbone(randomize_new_channels(make_joint(near_sd14_unet())))
    square = random_batch(denoiser.unet, (2,), (0,), size=16)
    batch = replace(square, latents=square.latents[:, :, :8])
    assert denoiser(batch.latents, 400, batch, "cached").shape == (2, 4, 8, 16)


@torch.no_grad()
def test_a_call_that_does_not_tell_the_size_of_its_latents_is_refused():
    unet = near_sd14_unet()
    batch = random_batch(unet, (2,))
    with pytest.raises(UsageError, match="grid"):
        unet(batch.latents, 10, batch.text, cross_attention_kwargs={"reads": SetReads((2,))})


@torch.no_grad()
def test_the_graph_has_no_breaks():
    torch.compiler.reset()
    unet = install_coupling(tiny_unet(), SLOPE)
    batch = random_batch(unet, (2, 1))
    settings = {"reads": SetReads((2, 1), grid=(8, 8))}
    want = unet(batch.latents, 10, batch.text, cross_attention_kwargs=settings).sample
    compiled = torch.compile(unet, backend="eager", fullgraph=True)
    got = compiled(batch.latents, 10, batch.text, cross_attention_kwargs=settings).sample
    torch.testing.assert_close(got, want, atol=1e-5, rtol=0)
