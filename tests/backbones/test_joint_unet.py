"""The widened input, what can and cannot be made joint, and the denoiser over sets."""

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from jedi_diffusion.backbones.unet import (
    CoupledSelfAttnProcessor,
    PerPictureProcessor,
    UNetBackbone,
    is_joint,
    make_joint,
    remove_coupling,
    widen_input,
)
from jedi_diffusion.errors import ModelError, UsageError
from jedi_diffusion.joint.attention import SetReads
from tests.helpers.small_models import random_batch, randomize_new_channels, small_sd14_unet, small_sdxl_unet

BUILDERS = {"sd14": small_sd14_unet, "sdxl": small_sdxl_unet}


@pytest.fixture(params=BUILDERS.values(), ids=BUILDERS.keys())
def build(request):
    return request.param


def noise_like(latents, seed=1):
    return torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed))


def added(batch):
    if "pooled_text" not in batch.conditions:
        return None
    return {"text_embeds": batch.conditions["pooled_text"], "time_ids": batch.conditions["time_ids"]}


def test_every_self_attention_is_coupled_and_no_other(build):
    unet = make_joint(build())
    kinds = {name: type(processor) for name, processor in unet.attn_processors.items()}
    assert {kind for name, kind in kinds.items() if ".attn1." in name} == {CoupledSelfAttnProcessor}
    assert {kind for name, kind in kinds.items() if ".attn1." not in name} == {PerPictureProcessor}
    layers = {name: p.layer for name, p in unet.attn_processors.items() if ".attn1." in name}
    assert all(name == f"{layer}.processor" for name, layer in layers.items())


def test_is_joint_needs_both_parts():
    unet = small_sd14_unet()
    assert not is_joint(unet)
    assert not is_joint(widen_input(unet))
    assert is_joint(make_joint(unet))
    assert not is_joint(remove_coupling(unet))
    with pytest.raises(ModelError, match="make_joint"):
        UNetBackbone(unet)


@torch.no_grad()
def test_untrained_sets_of_one_equal_the_base_model(build):
    base, batch = build(), random_batch(build(), (1, 1, 1), references=(1,))
    noisy = noise_like(batch.latents)
    want = base(noisy, 10, batch.text, added_cond_kwargs=added(batch)).sample
    got = UNetBackbone(make_joint(build()))(noisy, 10, batch)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_input_is_noisy_then_mask_then_reference(build):
    unet = randomize_new_channels(make_joint(build()))
    batch = random_batch(unet, (2, 1), references=(0,))
    noisy, steps = noise_like(batch.latents), torch.tensor([3, 3, 8])
    mask = torch.tensor([0.0, 1, 1]).view(3, 1, 1, 1).expand(3, 1, 8, 8)
    reference = torch.cat([batch.latents[:1], torch.zeros_like(batch.latents[1:])])
    want = unet(
        torch.cat([noisy, mask, reference], dim=1), steps, batch.text,
        added_cond_kwargs=added(batch), cross_attention_kwargs={"reads": SetReads((2, 1))},
    ).sample  # fmt: skip
    assert torch.equal(UNetBackbone(unet)(noisy, steps, batch), want)


def test_widening_keeps_weights_dtype_and_config():
    unet = small_sd14_unet().to(torch.bfloat16)
    old = unet.conv_in.weight.clone()
    widen_input(unet)
    assert unet.conv_in.weight.shape[1] == unet.config.in_channels == 9
    assert unet.conv_in.weight.dtype == torch.bfloat16
    assert torch.equal(unet.conv_in.weight[:, :4], old)
    assert not unet.conv_in.weight[:, 4:].any()
    wide = unet.conv_in
    assert widen_input(unet).conv_in is wide


def test_inpainting_channels_are_kept():
    unet = small_sd14_unet(in_channels=9)
    conv, weight = unet.conv_in, unet.conv_in.weight.clone()
    make_joint(unet)
    assert unet.conv_in is conv
    assert torch.equal(conv.weight, weight)


def test_a_saved_joint_model_loads_and_is_the_same(tmp_path, build):
    unet = randomize_new_channels(make_joint(build()))
    unet.save_pretrained(tmp_path)
    again = make_joint(UNet2DConditionModel.from_pretrained(tmp_path, use_safetensors=True))
    assert is_joint(again)
    batch = random_batch(unet, (2, 1), references=(0,))
    with torch.no_grad():
        results = [UNetBackbone(each)(noise_like(batch.latents), 5, batch) for each in (unet, again)]
    assert torch.equal(*results)


def test_other_numbers_of_channels_are_refused():
    with pytest.raises(ModelError, match="8 input and 4 output channels"):
        make_joint(small_sd14_unet(in_channels=8))


def test_widening_below_an_adapter_is_refused():
    from peft import LoraConfig

    unet = small_sd14_unet()
    unet.add_adapter(LoraConfig(r=2, target_modules=["conv_in"]))
    with pytest.raises(ModelError, match="before adding adapters"):
        make_joint(unet)


def test_unknown_attention_is_refused():
    class Special(AttnProcessor2_0):
        pass

    unet = small_sd14_unet()
    layer = unet.mid_block.attentions[0].transformer_blocks[0].attn2
    layer.set_processor(lambda *_: None)
    with pytest.raises(ModelError, match=r"mid_block.*attn2 runs function"):
        make_joint(unet)
    layer.set_processor(Special())
    assert is_joint(make_joint(unet))


def test_attention_outside_transformer_blocks_is_refused():
    unet = small_sd14_unet(mid_block_type="UNetMidBlock2DSimpleCrossAttn")
    with pytest.raises(ModelError, match="no plain transformer block"):
        make_joint(unet)


@torch.no_grad()
def test_output_has_the_dtype_of_the_latents():
    unet = make_joint(small_sd14_unet()).to(torch.bfloat16)
    batch = random_batch(unet, (2,), references=(0,))
    for coupling in ("joint", "cached"):
        assert UNetBackbone(unet)(batch.latents, 5, batch, coupling).dtype == torch.float32


def test_wrong_requests_are_refused():
    denoiser = UNetBackbone(make_joint(small_sd14_unet()))
    batch = random_batch(denoiser.unet, (2,), references=(0,))
    with pytest.raises(UsageError, match="Unknown coupling 'both'"):
        denoiser(batch.latents, 1, batch, "both")
    with pytest.raises(UsageError, match="references only"):
        denoiser.fill_cache(batch)
    references = random_batch(denoiser.unet, (2,), references=(0, 1))
    view = denoiser.fill_cache(references).for_sets([0])
    with pytest.raises(UsageError, match="needs coupling 'cached'"):
        denoiser(batch.latents, 1, batch, "joint", view)
    sdxl = UNetBackbone(make_joint(small_sdxl_unet()))
    with pytest.raises(UsageError, match="pooled_text"):
        sdxl(batch.latents, 1, batch)
