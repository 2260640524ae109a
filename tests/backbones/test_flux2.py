"""A FLUX.2 transformer over sets, against the stock transformer as diffusers' own pipelines call it."""

from dataclasses import replace

import pytest
import torch
from diffusers import Flux2KleinPipeline, Flux2Transformer2DModel
from diffusers.models.transformers.transformer_flux2 import (
    Flux2KVAttnProcessor,
    Flux2KVParallelSelfAttnProcessor,
)
from peft import LoraConfig
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from jedi_diffusion.backbones import family_of
from jedi_diffusion.backbones.flux2 import Flux2Backbone
from jedi_diffusion.backbones.sequences import image_indices
from jedi_diffusion.errors import ModelError
from jedi_diffusion.joint.cache import CachedTokens, ReferenceCache
from jedi_diffusion.joint.loss import JointLoss
from jedi_diffusion.joint.process import Flow
from jedi_diffusion.sets import SetBatch
from jedi_diffusion.visibility import DrawnVisibility
from tests.helpers.small_flux2 import KLEIN_4B, TINY, flux2_batch, tiny_transformer

TIME = torch.tensor(0.7)
EXTENTS = [(4, 6), (3, 5), (2, 7), (4, 6)]


def coupled(**config) -> Flux2Backbone:
    transformer = tiny_transformer(**config)
    Flux2Backbone.couple(transformer)
    return Flux2Backbone(transformer)


def noise_like(latents, seed=1):
    return torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed))


def cut(latents, extents):
    """Images without their padding, each (1, C, h, w)."""
    return [latent[None, :, :h, :w] for latent, (h, w) in zip(latents, extents, strict=True)]


def packed(images):
    """Images one after another as tokens, (1, T, C)."""
    return torch.cat([Flux2KleinPipeline._pack_latents(image) for image in images], dim=1)


def published(transformer, noisy, batch, **options):
    """One set whose last image is the target, called as `Flux2KleinPipeline` does: (C, h, w)."""
    (target,), references = cut(noisy[-1:], batch.extents[-1:]), cut(batch.latents[:-1], batch.extents[:-1])
    ids = [Flux2KleinPipeline._prepare_latent_ids(target)]
    if references:
        ids.append(Flux2KleinPipeline._prepare_image_ids(references))
    output = transformer(
        hidden_states=packed([target, *references]),
        encoder_hidden_states=batch.text[-1:],
        timestep=TIME.expand(1),
        img_ids=torch.cat(ids, dim=1),
        txt_ids=Flux2KleinPipeline._prepare_text_ids(batch.text[-1:]),
        return_dict=False,
        **options,
    )[0]
    height, width = target.shape[2:]
    return output[0, : height * width].T.unflatten(1, (height, width))


def kv_extracted(transformer, noisy, batch):
    """The same as the first step of `Flux2KleinKVPipeline`: one pass, masked, references at time 0."""
    twin = Flux2Transformer2DModel.from_config(transformer.config).eval()
    twin.load_state_dict(transformer.state_dict())
    for block in twin.transformer_blocks:
        block.attn.set_processor(Flux2KVAttnProcessor())
    for block in twin.single_transformer_blocks:
        block.attn.set_processor(Flux2KVParallelSelfAttnProcessor())
    (target,), references = cut(noisy[-1:], batch.extents[-1:]), cut(batch.latents[:-1], batch.extents[:-1])
    ids = [Flux2KleinPipeline._prepare_image_ids(references), Flux2KleinPipeline._prepare_latent_ids(target)]
    output = twin(
        hidden_states=packed([*references, target]),
        encoder_hidden_states=batch.text[-1:],
        timestep=TIME.expand(1),
        img_ids=torch.cat(ids, dim=1),
        txt_ids=Flux2KleinPipeline._prepare_text_ids(batch.text[-1:]),
        kv_cache_mode="extract",
        num_ref_tokens=packed(references).shape[1],
        return_dict=False,
    )[0]
    return output[0].T.unflatten(1, target.shape[2:])


@torch.no_grad()
@pytest.mark.parametrize("references", [0, 1, 3])
def test_a_set_with_one_target_equals_the_stock_transformer_exactly(references):
    batch = flux2_batch((references + 1,), tuple(range(references)), EXTENTS[-1 - references :])
    noisy = noise_like(batch.latents)
    got = coupled()(noisy, TIME, batch)[-1, :, :4, :6]
    assert torch.equal(got, published(tiny_transformer(), noisy, batch))


@torch.no_grad()
def test_what_the_coupled_transformer_does_outside_of_sets_is_unchanged():
    batch = flux2_batch((2,), (0,))
    noisy = noise_like(batch.latents)
    assert torch.equal(
        published(coupled().network, noisy, batch), published(tiny_transformer(), noisy, batch)
    )


@torch.no_grad()
@pytest.mark.parametrize("references", [1, 3])
def test_cached_equals_one_masked_pass_of_the_key_value_variant(references):
    batch = flux2_batch((references + 1,), tuple(range(references)), EXTENTS[-1 - references :])
    noisy, backbone = noise_like(batch.latents), coupled()
    want = kv_extracted(backbone.network, noisy, batch)
    together = backbone(noisy, TIME, batch, "cached")[-1, :, :4, :6]
    torch.testing.assert_close(together, want, atol=1e-5, rtol=0)
    cache = backbone.fill_cache(batch.select(range(references), (references,)))
    alone = batch.select([references], (1,))
    kept = backbone(noisy[-1:], TIME, alone, "cached", cache.for_sets([0]))[0, :, :4, :6]
    torch.testing.assert_close(kept, want, atol=1e-5, rtol=0)


@torch.no_grad()
def test_dropped_tokens_of_references_equal_a_mask_over_the_stock_transformer():
    batch = flux2_batch((3,), (0, 1))
    noisy, tokens, text = noise_like(batch.latents), 24, 5
    drawn = [DrawnVisibility(share=0.4, seed=seed) for seed in (1, 2)]
    mask = torch.zeros(text + 3 * tokens, text + 3 * tokens)
    for number, each in enumerate(drawn):
        own = slice(text + (1 + number) * tokens, text + (2 + number) * tokens)
        dropped = torch.ones(tokens, dtype=torch.bool)
        dropped[each.at((4, 6), torch.device("cpu")).places] = False
        mask[:, own] = mask[:, own].masked_fill(dropped, -torch.inf)
        mask[own, own] = 0  # an image reads all of itself
    want = published(
        tiny_transformer(), noisy, batch, joint_attention_kwargs={"attention_mask": mask[None, None]}
    )
    got = coupled()(noisy, TIME, replace(batch, visibility=(*drawn, None)))
    torch.testing.assert_close(got[-1], want, atol=1e-5, rtol=0)
    whole = coupled()(noisy, TIME, batch)
    assert (got[-1] - whole[-1]).abs().max() > 1e-3


@torch.no_grad()
def test_dropped_tokens_of_a_cached_reference_equal_a_cache_without_them():
    batch, backbone = flux2_batch((2,), (0,)), coupled()
    noisy, drawn = noise_like(batch.latents), DrawnVisibility(share=0.4, seed=1)
    places = drawn.at((4, 6), torch.device("cpu")).places
    cache, less = backbone.fill_cache(batch.select([0], (1,))), ReferenceCache()
    writer = less.writer((1,))
    for layer in backbone.attention_layers:
        (whole,) = cache.sets_of_layer(layer)
        writer.store_set(layer, 0, CachedTokens(whole.keys[:, places], whole.values[:, places]))
    want = backbone(noisy[1:], TIME, batch.select([1], (1,)), "cached", less.for_sets([0]))
    got = backbone(noisy, TIME, replace(batch, visibility=(drawn, None)), "cached")
    torch.testing.assert_close(got[1:], want, atol=1e-5, rtol=0)


RAGGED = {
    "sizes": (2, 1, 3, 4, 2),
    "references": (0, 3, 6, 7, 10),
    "extents": [
        (4, 6),
        (4, 6),
        (4, 6),
        (3, 5),
        (4, 6),
        (4, 4),
        (2, 7),
        (2, 7),
        (4, 6),
        (4, 6),
        (4, 6),
        (4, 6),
    ],
}


def ragged():
    return flux2_batch(RAGGED["sizes"], RAGGED["references"], RAGGED["extents"])


@torch.no_grad()
def test_text_is_private_and_images_are_not():
    """One pass of one layer, where nothing travels on by way of other tokens."""
    backbone = coupled(num_layers=0, num_single_layers=1)
    batch = flux2_batch((3,), (0,)).conditioned({"captioned": torch.tensor([[True]] * 3).flatten()})
    noisy = noise_like(batch.latents)
    before = backbone(noisy, TIME, batch)

    def changed(noisy=noisy, **text):
        made = backbone(noisy, TIME, batch.conditioned(text))
        return (made != before).flatten(1).any(dim=1).tolist()

    for row in range(3):
        text = batch.text.clone()
        text[row] += 1
        assert changed(text=text) == [number == row for number in range(3)]
    other = noisy.clone()
    other[1] += 1
    assert changed(other) == [True, True, True]
    assert not torch.equal(
        backbone(noisy, TIME, batch.conditioned({"captioned": torch.tensor([False] * 3)}))[0], before[0]
    )


def test_images_beyond_the_first_target_lie_at_indices_of_references():
    assert image_indices([True, True, False]) == [1, 2, 0]
    assert image_indices([True, False, False, True, False]) == [1, 0, 3, 2, 4]
    assert image_indices([False, False]) == [0, 1]


def test_families_know_a_flux2_transformer_and_refuse_what_is_not_coupled():
    transformer = tiny_transformer()
    assert family_of(transformer) is Flux2Backbone
    with pytest.raises(ModelError, match="couple"):
        Flux2Backbone(transformer)
    with pytest.raises(ModelError, match="distance_slope"):
        Flux2Backbone.couple(transformer, 1.0)


@torch.no_grad()
def test_a_model_of_the_shape_of_dev_is_told_its_guidance():
    backbone = coupled(guidance_embeds=True)
    batch = flux2_batch((2,), (0,))
    noisy = noise_like(batch.latents)
    want = published(tiny_transformer(guidance_embeds=True), noisy, batch, guidance=torch.tensor([4.0]))
    assert torch.equal(backbone(noisy, TIME, batch)[-1], want)
    other = backbone(noisy, TIME, batch.conditioned({"guidance": torch.tensor([1.0, 1.0])}))
    assert not torch.equal(other[-1], want)


def test_padding_and_references_carry_no_loss():
    backbone, batch = coupled(), ragged()
    loss = JointLoss(Flow(), reference_weight=0.0)
    draw = loss.draw(batch, torch.Generator().manual_seed(0))
    errors = (backbone(draw.noisy, draw.timesteps, batch) - draw.target) ** 2
    counted = [
        error[:, :height, :width].flatten()
        for error, (height, width), given in zip(errors, batch.extents, batch.is_reference, strict=True)
        if not given
    ]
    want = torch.cat(counted).mean()
    torch.testing.assert_close(loss(backbone, batch, torch.Generator().manual_seed(0)), want)


@pytest.mark.parametrize("coupling", ["joint", "cached"])
def test_adapters_lie_on_every_layer_of_the_blocks_and_a_few_steps_of_them_lower_the_loss(coupling):
    backbone, batch = coupled(), ragged()
    linear = {name for name, each in backbone.network.named_modules() if isinstance(each, nn.Linear)}
    backbone.network.requires_grad_(False)
    backbone.network.add_adapter(LoraConfig(r=4, target_modules=backbone.lora_targets))
    adapted = {
        name.removesuffix(".lora_A")
        for name, each in backbone.network.named_modules()
        if name.endswith(".lora_A")
    }
    assert adapted == {name for name in linear if "_blocks." in name}
    weights = [weight for weight in backbone.parameters() if weight.requires_grad]
    optimizer, loss = torch.optim.AdamW(weights, lr=1e-2), JointLoss(Flow(), reference_weight=0.0)
    values = []
    for _ in range(30):
        optimizer.zero_grad()
        value = loss(backbone, batch, torch.Generator().manual_seed(0), coupling)
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.8 * values[0]


def test_weights_are_sharded_by_block():
    backbone = coupled()
    units = [each for each in backbone.modules() if isinstance(each, backbone.shard_units)]
    assert len(units) == TINY["num_layers"] + TINY["num_single_layers"]


def test_what_klein_4b_computes_with_three_references_against_none():
    """Counted over 4 steps at 1024 x 1024 pixels, nothing is allocated."""
    with torch.device("meta"):
        transformer = Flux2Transformer2DModel(**KLEIN_4B)
        text, images = torch.empty(4, 512, 7680), torch.empty(4, 128, 64, 64)
    Flux2Backbone.couple(transformer)
    backbone = Flux2Backbone(transformer)
    mask = torch.tensor([0.0, 0.0, 0.0, 1.0]).view(-1, 1, 1, 1)
    whole = SetBatch(images, mask, {"text": text}, (4,))
    references, target = whole.select([0, 1, 2], (3,)), whole.select([3], (1,))

    def counted(run):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            made.append(run())
        return counter.get_total_flops()

    made = []
    time = torch.empty((), device="meta")
    alone = counted(lambda: backbone(images[:1], time, target))
    every_step = counted(lambda: backbone(images, time, whole))
    fill = counted(lambda: backbone.fill_cache(references))
    kept = counted(lambda: backbone(images[:1], time, target, "cached", made[2].for_sets([0])))
    ratios = [every_step / alone, (fill + 4 * kept) / (4 * alone), kept / alone]
    assert [round(ratio, 2) for ratio in ratios] == [5.5, 2.37, 1.5]
