"""FLUX.1 and SD3 transformers over sets, against the stock ones as diffusers' own pipelines call them."""

import math
import re
from dataclasses import replace
from functools import partial

import pytest
import torch
from diffusers import FluxKontextPipeline, FluxPipeline

from jedi_diffusion.backbones import family_of
from jedi_diffusion.backbones.flux import FluxBackbone, side_by_side
from jedi_diffusion.backbones.sd3 import SD3Backbone
from jedi_diffusion.backbones.sequences import ImageTokens
from jedi_diffusion.errors import ModelError, UsageError
from jedi_diffusion.joint.attention import SetReads
from jedi_diffusion.train.estimate import count_forward
from jedi_diffusion.visibility import Visibility
from tests.helpers.small_mmdit import SD35_MEDIUM, mmdit_batch, tiny_flux, tiny_sd3

TIME = torch.tensor(0.7)
EXTENTS = [(6, 8), (4, 10), (2, 6), (6, 8)]


def flux(clean_references=True, **config) -> FluxBackbone:
    transformer = tiny_flux(**config)
    FluxBackbone.couple(transformer)
    backbone = FluxBackbone(transformer)
    backbone.clean_references = clean_references
    return backbone


def sd3(**config) -> SD3Backbone:
    transformer = tiny_sd3(**config)
    SD3Backbone.couple(transformer)
    return SD3Backbone(transformer)


FAMILIES = {
    "kontext": flux,
    "flux": lambda: flux(clean_references=False),
    "sd3": sd3,
    "sd3.5-medium": lambda: sd3(**SD35_MEDIUM),
}
family = pytest.mark.parametrize("make", FAMILIES.values(), ids=FAMILIES)


def noise_like(latents, seed=1):
    return torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed))


def packed(image):
    """(1, C, H, W) -> (1, T, 4C), as the published pipeline does it."""
    return FluxPipeline._pack_latents(image, 1, *image.shape[1:])


def positions(image, index=0):
    ids = FluxKontextPipeline._prepare_latent_image_ids(
        1, image.shape[2] // 2, image.shape[3] // 2, "cpu", torch.float32
    )
    ids[:, 0] = index
    return ids


def stock_flux(transformer, images, ids, text, pooled, time=TIME, mask=None, **options):
    """Outputs (C, H, W) of images (1, C, H, W) in one plain sequence."""
    tokens = [packed(image) for image in images]
    output = transformer(
        hidden_states=torch.cat(tokens, dim=1),
        encoder_hidden_states=text,
        pooled_projections=pooled,
        timestep=time.expand(1),
        img_ids=torch.cat(ids),
        txt_ids=torch.zeros(text.shape[1], 3),
        joint_attention_kwargs=None if mask is None else {"attention_mask": mask},
        return_dict=False,
        **options,
    )[0]
    parts = output.split([each.shape[1] for each in tokens], dim=1)
    return [
        FluxPipeline._unpack_latents(part, image.shape[2] * 8, image.shape[3] * 8, 8)[0]
        for part, image in zip(parts, images, strict=True)
    ]


def cut(latents, extents):
    return [latent[None, :, :h, :w] for latent, (h, w) in zip(latents, extents, strict=True)]


@torch.no_grad()
@pytest.mark.parametrize("references", [0, 1, 3])
def test_a_flux_set_with_one_target_equals_the_stock_transformer_exactly(references):
    batch = mmdit_batch((references + 1,), tuple(range(references)), EXTENTS[-1 - references :])
    noisy = noise_like(batch.latents)
    images = cut(noisy[-1:], EXTENTS[-1:]) + cut(batch.latents[:-1], batch.extents[:-1])
    ids = [positions(image, index) for index, image in enumerate(images)]
    want = stock_flux(tiny_flux(), images, ids, batch.text[-1:], batch.conditions["pooled_text"][-1:])[0]
    assert torch.equal(flux()(noisy, TIME, batch)[-1, :, :6, :8], want)
    if not references:
        assert torch.equal(flux(clean_references=False)(noisy, TIME, batch)[-1], want)


@torch.no_grad()
def test_to_a_flux_model_without_references_a_set_is_one_wide_image_at_one_level_of_noise():
    batch = mmdit_batch((3,), (0, 1), [(6, 4), (6, 2), (6, 8)])
    noisy = noise_like(batch.latents)
    first, second, target = cut(noisy, batch.extents)
    canvas = torch.cat([second, first, target], dim=3)
    pooled, ids = batch.conditions["pooled_text"][-1:], positions(canvas)
    ids[:, 2] -= 3  # the target's first column is 0, as without references
    want = stock_flux(tiny_flux(), [canvas], [ids], batch.text[-1:], pooled)[0][..., 6:]
    got = flux(clean_references=False)(noisy, TIME, batch)[-1]
    torch.testing.assert_close(got, want, atol=1e-5, rtol=0)


def test_images_lie_side_by_side_in_the_order_of_their_indices():
    """Of tokens of one row: columns -5..-4, -3..-1 are references, 0..1 and 2 targets."""
    images = [(2, 0, False), (1, 3, False), (3, 1, True), (2, 2, True)]
    made = side_by_side([ImageTokens(1, width, place, kind, True) for width, place, kind in images])
    assert made.tolist() == [[0, 0, column] for column in (0, 1, 2, -3, -2, -1, -5, -4)]


def sees(parts, rules):
    """(T, T) bool: rules[i][j], whether part i of a sequence sees part j; parts: their lengths."""
    lengths = torch.tensor(parts)
    return torch.tensor(rules).repeat_interleave(lengths, 0).repeat_interleave(lengths, 1)


@torch.no_grad()
def test_several_flux_targets_equal_one_masked_pass_of_the_stock_transformer():
    batch = mmdit_batch((3,), (0,), [(4, 6), (6, 8), (6, 8)])
    noisy = noise_like(batch.latents)
    reference, *targets = cut(torch.cat([batch.latents[:1], noisy[1:]]), batch.extents)
    images = [*targets, reference]
    ids = [positions(targets[0]), positions(targets[1], 2), positions(reference, 1)]
    # captions of both targets, then both targets, then the reference
    rules = [
        [True, False, True, True, True],
        [False, True, True, True, True],
        [True, False, True, True, True],
        [False, True, True, True, True],
        [True, True, True, True, True],
    ]
    pooled = batch.conditions["pooled_text"][1:].mean(0, keepdim=True)
    want = stock_flux(
        tiny_flux(),
        images,
        ids,
        batch.text[1:].flatten(0, 1)[None],
        pooled,
        mask=sees([5, 5, 12, 12, 6], rules),
    )
    got = flux()(noisy, TIME, batch)
    torch.testing.assert_close(got[1:], torch.stack(want[:2]), atol=1e-5, rtol=0)
    torch.testing.assert_close(got[0, :, :4, :6], want[2], atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("coupling", ["joint", "cached"])
def test_flux_masks_and_strengths_equal_one_masked_pass_of_the_stock_transformer(coupling):
    """Two references of sizes of their own; the mask keeps 3 of 6 tokens of the first, at time 0."""
    batch = mmdit_batch((3,), (0, 1), [(4, 6), (6, 4), (6, 8)])
    same = batch.conditions["pooled_text"][:1].expand(3, -1)
    mask = torch.zeros(8, 12)
    mask[:5, 4:] = 1  # tokens 1 and 2 of both rows; of the lower ones a quarter alone
    mask[4:, 8:] = 1
    strong = Visibility(strength=2.5)
    batch = replace(
        batch.conditioned({"pooled_text": same}), visibility=(Visibility(mask, 0.5), strong, None)
    )
    noisy = noise_like(batch.latents)
    images = cut(torch.cat([noisy[2:], batch.latents[:2]]), [(6, 8), (4, 6), (6, 4)])
    sizes = [5, 12, 6, 6]
    text, target, first, second = torch.arange(29).split(sizes)
    bias = torch.zeros(29, 29)
    bias[:, first] = torch.tensor([0, 1, 1, 0, 0, 1]).log() + math.log(0.5)
    bias[:, second] = math.log(2.5)
    bias[first[:, None], first], bias[second[:, None], second] = 0, 0
    if coupling == "cached":
        bias[torch.cat([first, second])[:, None], torch.cat([text, target])] = -math.inf
    ids = [positions(image, index) for index, image in enumerate(images)]
    time = torch.tensor(0.0)
    want = stock_flux(tiny_flux(), images, ids, batch.text[-1:], same[:1], time=time, mask=bias)[0]
    backbone = flux()
    got = backbone(noisy, time, batch, coupling)[-1]
    torch.testing.assert_close(got, want, atol=1e-5, rtol=0)
    assert not torch.allclose(backbone(noisy, time, replace(batch, visibility=None), coupling)[-1], want)
    if coupling == "cached":
        cache = backbone.fill_cache(batch.select([0, 1], (2,)))
        assert cache.tokens(0) == 9
        alone = batch.select([2], (1,))
        kept = backbone(noisy[2:], time, alone, "cached", cache.for_sets([0]))[0]
        torch.testing.assert_close(kept, want, atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("coupling", ["joint", "cached"])
def test_flux_regions_and_subjects_equal_one_masked_pass_of_the_stock_transformer(coupling):
    """Two subjects, of whom the left and the lower right part of the target read one each, text neither."""
    batch = mmdit_batch((3,), (0, 1), [(4, 6), (6, 4), (6, 8)])
    same = batch.conditions["pooled_text"][:1].expand(3, -1)
    left, right = (0.0, 0.0, 0.5, 1.0), (0.4, 0.3, 1.0, 1.0)
    apart = (Visibility(strength=0.5, box=left, subject=0), Visibility(box=right, subject=1), None)
    batch = replace(batch.conditioned({"pooled_text": same}), visibility=apart)
    noisy = noise_like(batch.latents)
    images = cut(torch.cat([noisy[2:], batch.latents[:2]]), [(6, 8), (4, 6), (6, 4)])
    text, target, first, second = torch.arange(29).split([5, 12, 6, 6])
    inside_left = torch.tensor([1, 1, 0, 0] * 3, dtype=torch.bool)
    inside_right = torch.tensor([0] * 4 + [0, 0, 1, 1] * 2, dtype=torch.bool)
    bias = torch.zeros(29, 29)
    bias[:, first] = math.log(0.5)
    for own, box in ((first, inside_left), (second, inside_right)):
        bias[text[:, None], own] = -math.inf
        bias[target[~box][:, None], own] = -math.inf
        bias[own[:, None], target[~box]] = -math.inf
        bias[own[:, None], own] = 0
    bias[first[:, None], second] = bias[second[:, None], first] = -math.inf
    if coupling == "cached":
        bias[torch.cat([first, second])[:, None], torch.cat([text, target])] = -math.inf
    ids = [positions(image, index) for index, image in enumerate(images)]
    time = torch.tensor(0.0)
    want = stock_flux(tiny_flux(), images, ids, batch.text[-1:], same[:1], time=time, mask=bias)[0]
    backbone = flux()
    got = backbone(noisy, time, batch, coupling)[-1]
    torch.testing.assert_close(got, want, atol=1e-5, rtol=0)
    if coupling == "cached":
        cache = backbone.fill_cache(batch.select([0, 1], (2,)))
        kept = backbone(noisy[2:], time, batch.select([2], (1,)), "cached", cache.for_sets([0]))[0]
        torch.testing.assert_close(kept, want, atol=1e-5, rtol=0)


def with_mask(mask, module, arguments, options):
    """A hook before a layer that gives it an attention mask."""
    return arguments, options | {"attention_mask": mask}


@torch.no_grad()
@pytest.mark.parametrize("coupling", ["joint", "cached"])
def test_flux_layers_that_do_not_couple_equal_one_masked_pass(coupling):
    """In them an image reads itself and its captions; at time 0, that of cached references."""
    batch = mmdit_batch((3,), (0, 1), [(4, 6), (6, 4), (6, 8)])
    same = batch.conditions["pooled_text"][:1].expand(3, -1)
    batch = batch.conditioned({"pooled_text": same})
    noisy = noise_like(batch.latents)
    images = cut(torch.cat([noisy[2:], batch.latents[:2]]), [(6, 8), (4, 6), (6, 4)])
    captions = coupling == "joint"  # cached references read none
    coupled = [[True] * 4, [True] * 4, *[[captions, captions, True, True]] * 2]
    alone = [[True, True, False, False]] * 2 + [
        [captions, False, True, False],
        [captions, False, False, True],
    ]
    layers = frozenset({"transformer_blocks.1.attn", "single_transformer_blocks.0.attn"})
    stock = tiny_flux()
    for name, module in stock.named_modules():
        if name.endswith(".attn"):
            mask = sees([5, 12, 6, 6], coupled if name in layers else alone)
            masked = partial(with_mask, mask)
            module.register_forward_pre_hook(masked, with_kwargs=True)
    ids = [positions(image, index) for index, image in enumerate(images)]
    time = torch.tensor(0.0)
    want = stock_flux(stock, images, ids, batch.text[-1:], same[:1], time=time)[0]
    backbone = flux()
    backbone.coupled_layers = layers
    torch.testing.assert_close(backbone(noisy, time, batch, coupling)[-1], want, atol=1e-5, rtol=0)


@torch.no_grad()
def test_cached_flux_references_equal_one_masked_pass_of_the_stock_transformer():
    """At time 0, where references and target share their modulation."""
    batch = mmdit_batch((3,), (0, 1), [(4, 6), (6, 4), (6, 8)])
    same = batch.conditions["pooled_text"][:1].expand(3, -1)
    batch = batch.conditioned({"pooled_text": same})
    noisy = noise_like(batch.latents)
    images = cut(torch.cat([noisy[2:], batch.latents[:2]]), [(6, 8), (4, 6), (6, 4)])
    rules = [[True, True, True], [True, True, True], [False, False, True]]  # text, target, references
    want = stock_flux(
        tiny_flux(),
        images,
        [positions(image, index) for index, image in enumerate(images)],
        batch.text[-1:],
        same[:1],
        time=torch.tensor(0.0),
        mask=sees([5, 12, 12], rules),
    )[0]
    backbone = flux()
    got = backbone(noisy, torch.tensor(0.0), batch, "cached")[-1]
    torch.testing.assert_close(got, want, atol=1e-5, rtol=0)
    cache = backbone.fill_cache(batch.select([0, 1], (2,)))
    alone = batch.select([2], (1,))
    kept = backbone(noisy[2:], torch.tensor(0.0), alone, "cached", cache.for_sets([0]))[0]
    torch.testing.assert_close(kept, want, atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("config", [{}, SD35_MEDIUM], ids=["sd3", "sd3.5-medium"])
def test_sd3_sets_of_one_equal_the_stock_transformer_exactly(config):
    batch = mmdit_batch((1, 1))
    noisy = noise_like(batch.latents)
    want = tiny_sd3(**config)(
        noisy,
        encoder_hidden_states=batch.text,
        pooled_projections=batch.conditions["pooled_text"],
        timestep=(TIME * 1000).expand(2),
        return_dict=False,
    )[0]
    assert torch.equal(sd3(**config)(noisy, TIME, batch), want)


@torch.no_grad()
@pytest.mark.parametrize("config", [{}, SD35_MEDIUM], ids=["sd3", "sd3.5-medium"])
def test_cached_sd3_references_equal_one_masked_pass(config):
    batch, backbone = mmdit_batch((3, 2), (0, 1, 3)), sd3(**config)
    noisy, given = noise_like(batch.latents), batch.is_reference
    shown = torch.where(given.view(-1, 1, 1, 1), batch.latents, noisy)
    times = torch.where(given, torch.tensor(0.0), TIME)
    want = backbone.predict(shown, times, batch, SetReads(batch.set_sizes, is_reference=given))
    got = backbone(noisy, TIME, batch, "cached")
    torch.testing.assert_close(got, want, atol=1e-5, rtol=0)
    cache = backbone.fill_cache(batch.select([0, 1, 3], (2, 1)))
    targets = batch.select([2, 4], (1, 1))
    kept = backbone(noisy[[2, 4]], TIME, targets, "cached", cache.for_sets([0, 1]))
    torch.testing.assert_close(kept, want[[2, 4]], atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize(
    "make",
    [lambda: flux(num_layers=0, num_single_layers=1), lambda: sd3(num_layers=1)],
    ids=["flux", "sd3"],
)
def test_text_is_private_and_images_are_not(make):
    """One pass of one layer, where nothing travels on by way of other tokens."""
    backbone, batch = make(), mmdit_batch((3,))
    noisy = noise_like(batch.latents)
    before = backbone(noisy, TIME, batch)
    for row in range(3):
        text, other = batch.text.clone(), noisy.clone()
        text[row] += 1
        other[row] += 1
        of_text = backbone(noisy, TIME, batch.conditioned({"text": text})) != before
        assert of_text.flatten(1).any(dim=1).tolist() == [number == row for number in range(3)]
        assert (backbone(other, TIME, batch) != before).flatten(1).any(dim=1).all()


def test_adapters_go_on_every_layer_of_the_blocks():
    for backbone in (flux(), sd3(**SD35_MEDIUM)):
        layers = [
            name for name, each in backbone.network.named_modules() if isinstance(each, torch.nn.Linear)
        ]
        blocks = [name for name in layers if "transformer_blocks" in name and ".norm" not in name]
        assert blocks == [name for name in layers if re.fullmatch(backbone.lora_targets, name)]
        units = [each for each in backbone.network.modules() if isinstance(each, backbone.shard_units)]
        assert len(units) == (4 if isinstance(backbone, FluxBackbone) else 3)


@torch.no_grad()
def test_a_flux_model_that_takes_guidance_is_told_it():
    backbone, batch = flux(guidance_embeds=True), mmdit_batch((1,))
    noisy = noise_like(batch.latents)
    options = [[noisy], [positions(noisy)], batch.text, batch.conditions["pooled_text"]]
    for guidance in (3.5, 2.5):
        want = stock_flux(tiny_flux(guidance_embeds=True), *options, guidance=torch.tensor([guidance]))[0]
        given = {} if guidance == 3.5 else {"guidance": torch.tensor([guidance])}
        assert torch.equal(backbone(noisy, TIME, batch.conditioned(given))[0], want)


@torch.no_grad()
def test_fill_reads_references_as_what_stays_and_targets_as_what_is_to_be_filled():
    """Its input is eq. 2's: noisy latents, the image without what is to be filled, the mask."""
    fill = {"in_channels": 16 * 2 + 256, "out_channels": 16}
    backbone = flux(clean_references=False, **fill)
    grey = torch.randn(1, 4, 6, 8, generator=torch.Generator().manual_seed(5))
    batch = replace(mmdit_batch((1,)), blank=grey)
    noisy = noise_like(batch.latents)
    tokens = torch.cat([packed(noisy), packed(grey), torch.ones(1, 12, 256)], dim=2)
    output = tiny_flux(**fill)(
        hidden_states=tokens,
        encoder_hidden_states=batch.text,
        pooled_projections=batch.conditions["pooled_text"],
        timestep=TIME.expand(1),
        img_ids=positions(noisy),
        txt_ids=torch.zeros(5, 3),
        return_dict=False,
    )[0]
    assert backbone.latent_channels == 4
    assert torch.equal(backbone(noisy, TIME, batch), FluxPipeline._unpack_latents(output, 48, 64, 8))


def test_what_does_not_fit_is_refused_in_a_sentence():
    assert family_of(tiny_flux()) is FluxBackbone
    assert family_of(tiny_sd3()) is SD3Backbone
    for backbone in (flux(), sd3()):
        kind, batch = type(backbone), mmdit_batch((1,))
        with pytest.raises(ModelError, match="distance_slope must be 0"):
            kind.couple(backbone.network, 1.0)
        bare = replace(batch, conditions={"text": batch.text})
        with pytest.raises(UsageError, match="needs `pooled_text`"):
            backbone(batch.latents, TIME, bare)
    with pytest.raises(ModelError, match="32 input and 16 output channels"):
        FluxBackbone.couple(tiny_flux(in_channels=32, out_channels=16))
    ragged = mmdit_batch((2,), (0,), [(4, 6), (6, 8)])
    with pytest.raises(UsageError, match="images of one size"):
        sd3()(ragged.latents, TIME, ragged)
    large = mmdit_batch((1,), (), [(26, 8)])
    with pytest.raises(UsageError, match="reads 24 at most"):
        sd3()(large.latents, TIME, large)


@family
def test_work_is_counted_without_memory_for_weights(make):
    backbone = make()
    with torch.device("meta"):
        network = type(backbone).fresh(backbone.network)
    one, two = (count_forward(network, number, 8) for number in (1, 2))
    assert two > 2 * one > 0
