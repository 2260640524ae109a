"""The pipeline on small random models: what it computes, and what it refuses."""

import logging
from dataclasses import replace

import numpy as np
import peft
import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    StableDiffusionPipeline,
)
from diffusers.models.attention_processor import AttnProcessor2_0
from PIL import Image

from jedi_diffusion.backbones.unet import UNetBackbone, coupled_slope, make_joint
from jedi_diffusion.errors import ModelError, UsageError
from jedi_diffusion.inputs import family_of
from jedi_diffusion.joint.guidance import MODES
from jedi_diffusion.pipeline import JeDiPipeline
from tests.helpers.small_pipelines import WORDS, make_tokenizer, sd_parts, sdxl_parts


def fill_new_channels(unet):
    """Weights as after some training: references reach the output through the input, too."""
    with torch.no_grad():
        unet.conv_in.weight[:, 4:].normal_(std=0.05, generator=torch.Generator().manual_seed(1))
    return unet


def build(parts):
    pipe = JeDiPipeline(**parts | {"unet": fill_new_channels(make_joint(parts["unet"]))})
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def pipe():
    return build(sd_parts())


@pytest.fixture(scope="module")
def photos():
    draw = np.random.default_rng(0)
    return [Image.fromarray(draw.integers(0, 256, (70, 90, 3), dtype=np.uint8)) for _ in range(3)]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def latents(pipe, prompt, references=(), **settings):
    settings = {"num_inference_steps": 3, "generator": generator(), "output_type": "latent"} | settings
    return pipe(prompt, references, **settings).images


def test_pictures_come_prompt_major_in_every_output_type(pipe, photos):
    call = {"prompt": ["a dog", "a robot"], "references": photos[:1], "num_images_per_prompt": 2}
    call |= {"num_inference_steps": 2}
    pil = pipe(**call, generator=generator()).images
    assert [picture.size for picture in pil] == [(64, 64)] * 4
    array = pipe(**call, generator=generator(), output_type="np").images
    tensor = pipe(**call, generator=generator(), output_type="pt").images
    assert (array.shape, tensor.shape) == ((4, 64, 64, 3), (4, 3, 64, 64))
    assert np.array_equal(np.array(pil[2]), (array[2] * 255).round().astype(np.uint8))
    raw = latents(pipe, ["a dog", "a robot"], photos[:1], num_images_per_prompt=2, num_inference_steps=2)
    decoded = pipe.decode_latents(raw)
    torch.testing.assert_close((decoded / 2 + 0.5).clamp(0, 1), tensor, rtol=0, atol=1e-5)
    (images,) = pipe("a dog", num_inference_steps=1, return_dict=False)
    assert len(images) == 1


@pytest.mark.parametrize("coupling", ["joint", "cached"])
@pytest.mark.parametrize("mode", MODES)
def test_a_picture_is_the_same_alone_and_in_a_larger_call(pipe, photos, mode, coupling):
    settings = {"guidance_mode": mode, "image_guidance_scale": 2.0, "coupling": coupling}
    together = latents(pipe, ["a dog", "a robot"], photos[:2], num_images_per_prompt=2, **settings)
    first = latents(pipe, "a dog", photos[:2], **settings)
    torch.testing.assert_close(first, together[:1], rtol=0, atol=1e-4)
    own = [generator(seed) for seed in (5, 6)]
    pair = latents(pipe, ["a dog", "a robot"], photos[:2], **settings | {"generator": own})
    last = latents(pipe, "a robot", photos[:2], **settings | {"generator": [generator(6)]})
    torch.testing.assert_close(last, pair[1:], rtol=0, atol=1e-4)


@pytest.mark.parametrize("coupling", ["joint", "cached"])
def test_pictures_depend_on_prompt_references_their_captions_and_the_seed(pipe, photos, coupling):
    base = latents(pipe, "a dog", photos[:1], coupling=coupling)
    assert torch.equal(base, latents(pipe, "a dog", photos[:1], coupling=coupling))
    others = [
        latents(pipe, "a robot", photos[:1], coupling=coupling),
        latents(pipe, "a dog", photos[1:2], coupling=coupling),
        latents(pipe, "a dog", photos[:2], coupling=coupling),
        latents(pipe, "a dog", photos[:1], reference_prompts="a dog", coupling=coupling),
        latents(pipe, "a dog", photos[:1], generator=generator(1), coupling=coupling),
        latents(pipe, "a dog", coupling=coupling),
    ]
    for other in others:
        assert not torch.allclose(base, other, atol=1e-3)


def test_cached_equals_the_masked_form_without_a_cache(pipe, photos):
    """Three steps of DDIM by hand, every branch with its references beside it, as training runs them."""
    cached = latents(pipe, "a dog", photos[:2], coupling="cached", reference_prompts="a robot")
    noise = None

    def keep(noisy, *_, **__):
        nonlocal noise
        noise = noisy
        return noisy * 0

    seen = latents_of_first_step(pipe, photos, keep)
    scheduler, denoiser = pipe.scheduler, UNetBackbone(pipe.unet)
    scheduler.set_timesteps(3)
    x = noise[-1:]
    null = pipe.encode_captions([""])
    full = replace(seen, conditions=pipe.encode_captions(["a robot"] * 2 + ["a dog"]))
    alone = full.select([2], (1,))
    alone = replace(alone, conditions=null, mask=torch.ones(1, 1, 1, 1))
    with torch.no_grad():
        for t in scheduler.timesteps:
            sets = torch.cat([full.latents[:2], x])
            e = denoiser(sets, t, full, coupling="cached")[2:]
            e0 = denoiser(x, t, alone, coupling="joint")
            x = scheduler.step(e0 + 3.0 * (e - e0), t, x, return_dict=False)[0]
    torch.testing.assert_close(cached, x, rtol=1e-4, atol=1e-3)


def latents_of_first_step(pipe, photos, denoiser):
    """Three steps of DDIM by hand, every branch with its references beside it, as training runs it."""
    seen = []

    def record(noisy, timestep, batch, coupling="joint", reference_cache=None, attention_record=None):
        seen.append(batch)
        return denoiser(noisy)

    latents(pipe, "a dog", photos[:2], guidance_scale=1.0, num_inference_steps=1, denoiser=record)
    return seen[0]


def test_references_are_encoded_scaled_and_shown_with_mask_zero(pipe, photos):
    batch = latents_of_first_step(pipe, photos, lambda noisy: noisy * 0)
    assert batch.set_sizes == (3,)
    assert batch.mask.flatten().tolist() == [0, 0, 1]
    square = photos[0].crop((10, 0, 80, 70)).resize((64, 64), Image.Resampling.LANCZOS)
    pixels = torch.from_numpy(np.array(square)).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        expected = pipe.vae.encode(pixels).latent_dist.mode() * 0.18215
    torch.testing.assert_close(batch.reference_latents[:1], expected, rtol=0, atol=0.01)
    assert batch.reference_latents[2].abs().max() == 0


@pytest.mark.parametrize("null_set", ["joint", "single"])
def test_joint_targets_share_a_set(pipe, null_set):
    settings = {"null_set": null_set, "num_images_per_prompt": 2}
    apart = latents(pipe, "a dog", **settings)
    shared = latents(pipe, "a dog", joint_targets=True, **settings)
    assert not torch.allclose(apart, shared, atol=1e-3)


def test_null_sets_differ_with_references_and_agree_when_cached(pipe, photos):
    for coupling, same in (("joint", False), ("cached", True)):
        settings = {"coupling": coupling}
        joint = latents(pipe, "a dog", photos[:1], null_set="joint", **settings)
        single = latents(pipe, "a dog", photos[:1], null_set="single", **settings)
        assert torch.allclose(joint, single, atol=1e-3) is same


@pytest.mark.parametrize("coupling", ["joint", "cached"])
def test_steps_outside_of_the_interval_of_guidance_are_unguided(pipe, photos, coupling):
    """Also with a scale of 0, where guidance alone would never read the references with their captions."""
    settings = {"coupling": coupling, "reference_prompts": "a robot"}
    plain = latents(pipe, "a dog", photos[:2], guidance_scale=1.0, **settings)
    for scale in (0.0, 5.0):
        never = {"guidance_scale": scale, "guidance_start": 0.5, "guidance_stop": 0.5}
        assert torch.equal(latents(pipe, "a dog", photos[:2], **never, **settings), plain)
    some = latents(pipe, "a dog", photos[:2], guidance_scale=5.0, guidance_stop=0.5, **settings)
    assert not torch.allclose(some, plain, atol=1e-3)


@pytest.mark.parametrize("coupling", ["joint", "cached"])
def test_references_are_read_at_the_steps_between_two_shares_alone(pipe, photos, coupling):
    """Up to them every step is that of a call without references, from the same noise."""
    settings = {"coupling": coupling, "num_inference_steps": 4}
    passed = []

    def keep(_pipe, _step, _timestep, tensors):
        passed.append(tensors["latents"])

    plain = latents(pipe, "a dog", **settings, callback_on_step_end=keep)
    late = latents(pipe, "a dog", photos[:2], references_start=0.5, **settings, callback_on_step_end=keep)
    for before, after in zip(passed[:2], passed[4:6], strict=True):
        torch.testing.assert_close(before, after, rtol=0, atol=1e-4)
    assert not torch.allclose(plain, late, atol=1e-3)
    never = latents(pipe, "a dog", photos[:2], references_start=0.5, references_stop=0.5, **settings)
    torch.testing.assert_close(never, plain, rtol=0, atol=1e-4)
    whole = latents(pipe, "a dog", photos[:2], **settings)
    early = latents(pipe, "a dog", photos[:2], references_stop=0.5, **settings)
    assert not torch.allclose(whole, early, atol=1e-3)


@pytest.mark.parametrize("coupling", ["joint", "cached"])
def test_layers_that_couple_are_chosen_by_name(pipe, photos, coupling):
    made = {
        layers: latents(pipe, "a dog", photos[:2], coupling=coupling, coupled_layers=layers)
        for layers in ("all", "up", "down", "up,down,mid", "-1")
    }
    assert torch.equal(made["all"], made["up,down,mid"])
    for one, other in (("all", "up"), ("up", "down"), ("up", "-1")):
        assert not torch.allclose(made[one], made[other], atol=1e-3), (one, other)
    assert pipe.backbone.coupled_layers is None  # a call leaves nothing behind


def test_the_untrained_model_personalizes_by_coupling_and_replacement(tmp_path, photos):
    base = StableDiffusionPipeline(
        **sd_parts(), safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    base.save_pretrained(tmp_path)
    pipe = JeDiPipeline.from_single_image_model(tmp_path)
    assert pipe.unet.conv_in.weight[:, 4:].abs().max() == 0
    assert not torch.allclose(
        latents(pipe, "a dog", photos[:1]), latents(pipe, "a dog", photos[1:2]), atol=1e-3
    )


def test_a_call_that_names_no_coupling_takes_the_models_own(tmp_path, photos):
    pipe = build(sd_parts())
    assert torch.equal(
        latents(pipe, "a dog", photos[:1]), latents(pipe, "a dog", photos[:1], coupling="joint")
    )
    pipe.register_to_config(coupling="cached")
    pipe.save_pretrained(tmp_path)
    again = JeDiPipeline.from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    cached = latents(again, "a dog", photos[:1], coupling="cached")
    assert torch.equal(latents(again, "a dog", photos[:1]), cached)
    assert not torch.equal(latents(again, "a dog", photos[:1], coupling="joint"), cached)
    latents(again, ["a dog", "a robot"], joint_targets=True)
    with pytest.raises(UsageError, match="coupling"):
        JeDiPipeline(**dict(again.components), coupling="loose")


def test_attention_by_position_is_saved_with_the_model(tmp_path, photos):
    plain = latents(build(sd_parts()), "a dog", photos[:1])
    pipe = build(sd_parts())
    pipe = JeDiPipeline(**pipe.components, distance_slope=2.0)
    near = latents(pipe, "a dog", photos[:1])
    assert not torch.allclose(near, plain, atol=1e-3)
    pipe.save_pretrained(tmp_path)
    again = JeDiPipeline.from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    assert coupled_slope(again.unet) == 2
    assert torch.equal(latents(again, "a dog", photos[:1]), near)
    assert JeDiPipeline(**again.components).config.distance_slope == 2


def test_a_temperature_scales_the_first_noise_and_is_saved_with_the_model(tmp_path, photos):
    pipe = build(sd_parts())
    full = latents(pipe, "a dog", photos[:1])
    assert torch.equal(latents(pipe, "a dog", photos[:1], temperature=1.0), full)
    still = [latents(pipe, "a dog", temperature=0.0, generator=generator(seed)) for seed in (0, 1)]
    assert torch.equal(*still)
    pipe.register_to_config(temperature=0.5)
    half = latents(pipe, "a dog", photos[:1])
    assert not torch.allclose(half, full, atol=1e-3)
    pipe.save_pretrained(tmp_path)
    again = JeDiPipeline.from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    assert torch.equal(latents(again, "a dog", photos[:1]), half)
    for wrong in (-0.1, 1.5, float("nan")):
        with pytest.raises(UsageError, match=r"temperature is .*, but must lie between 0 and 1"):
            latents(pipe, "a dog", temperature=wrong)
        with pytest.raises(UsageError, match=r"temperature is .*, but must lie between 0 and 1"):
            JeDiPipeline(**pipe.components, temperature=wrong)


def test_a_model_with_adapters_around_its_layers_is_not_saved_as_if_it_had_none(tmp_path):
    pipe = build(sd_parts())
    pipe.unet.add_adapter(peft.LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False))
    with pytest.raises(UsageError, match=r"fuse_lora\(\)"):
        pipe.save_pretrained(tmp_path)
    assert list(tmp_path.iterdir()) == []
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    pipe.save_pretrained(tmp_path)
    again = JeDiPipeline.from_pretrained(tmp_path).unet.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in pipe.unet.state_dict().items())


@pytest.mark.parametrize("make", [sd_parts, sdxl_parts])
def test_a_saved_pipeline_gives_the_same_picture(make, tmp_path, photos):
    pipe = build(make())
    pipe.save_pretrained(tmp_path)
    again = JeDiPipeline.from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    first, second = (
        latents(each, "a dog", photos[:1], guidance_mode="image_first", image_guidance_scale=2.0)
        for each in (pipe, again)
    )
    assert torch.equal(first, second)


@pytest.mark.parametrize("coupling", ["joint", "cached"])
def test_sdxl_reads_pooled_text_and_sizes(photos, coupling):
    pipe = build(sdxl_parts())
    settings = {"guidance_mode": "image_first", "image_guidance_scale": 2.0, "coupling": coupling}
    picture = latents(pipe, "a dog", photos[:2], **settings)
    assert picture.isfinite().all()
    larger = latents(pipe, ["a dog", "a robot"], photos[:2], **settings)
    torch.testing.assert_close(larger[:1], picture, rtol=0, atol=1e-4)
    wide = latents(pipe, "a dog", photos[:1], height=64, width=96)
    assert wide.shape == (1, 4, 8, 12)


@pytest.mark.parametrize("scheduler", [DPMSolverMultistepScheduler, EulerDiscreteScheduler, LCMScheduler])
def test_schedulers_of_the_family(photos, scheduler):
    pipe = build(sd_parts())
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config)
    before = dict(vars(pipe.scheduler))
    picture = latents(pipe, ["a dog", "a robot"], photos[:1], generator=[generator(1), generator(2)])
    assert picture.isfinite().all()
    alone = latents(pipe, "a robot", photos[:1], generator=[generator(2)])
    torch.testing.assert_close(alone, picture[1:], rtol=0, atol=1e-4)
    assert all(vars(pipe.scheduler)[name] is value for name, value in before.items())


def test_a_patch_autoencoder_takes_the_autoencoders_place(tmp_path, photos):
    from jedi_diffusion.networks.autoencoder import PatchAutoencoder

    parts = sd_parts()
    parts["vae"] = PatchAutoencoder(latent_channels=4, widths=(16, 16))
    pipe = build(parts)
    pipe.save_pretrained(tmp_path)
    again = JeDiPipeline.from_pretrained(tmp_path)
    assert torch.equal(latents(pipe, "a dog", photos[:1]), latents(again, "a dog", photos[:1]))
    assert again("a dog", photos[:1], num_inference_steps=1).images[0].size == (64, 64)


def test_an_inpainting_model_keeps_its_nine_channels_and_what_they_show(tmp_path, photos):
    parts = sd_parts(in_channels=9)
    base = StableDiffusionPipeline(
        **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    base.save_pretrained(tmp_path)
    pipe = JeDiPipeline.from_single_image_model(tmp_path)
    assert torch.equal(pipe.unet.conv_in.weight, parts["unet"].conv_in.weight)
    pipe.set_progress_bar_config(disable=True)
    batch = latents_of_first_step(pipe, photos, lambda noisy: noisy * 0)
    with torch.no_grad():
        grey = pipe.encode_pictures(torch.zeros(1, 3, 64, 64))
    assert grey.abs().max() > 0.01
    torch.testing.assert_close(batch.reference_latents[2:], grey)
    torch.testing.assert_close(batch.reference_latents[:2], batch.latents[:2])
    with pytest.raises(UsageError, match="targets_show"):
        JeDiPipeline(**dict(pipe.components), targets_show="white")


def test_a_single_image_model_is_refused_with_the_way_to_convert_it():
    with pytest.raises(ModelError, match="from_single_image_model"):
        JeDiPipeline(**sd_parts())
    with pytest.raises(ValueError, match="from_single_image_model"):  # what diffusers' users catch
        JeDiPipeline(**sd_parts())


def test_a_hub_id_is_fetched_as_safetensors_and_checked_like_a_folder(pipe, tmp_path, monkeypatch):
    pipe.save_pretrained(tmp_path)
    fetched = []

    def download(name, **settings):
        fetched.append((name, settings))
        return str(tmp_path)

    monkeypatch.setattr(JeDiPipeline, "download", download)
    JeDiPipeline.from_pretrained("owner/model", revision="main", dtype=torch.bfloat16)
    assert fetched == [("owner/model", {"use_safetensors": True, "variant": None, "revision": "main"})]
    (tmp_path / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"\x80\x04 a pickle")
    for load in (JeDiPipeline.from_pretrained, JeDiPipeline.from_single_image_model):
        with pytest.raises(ModelError, match="pickle"):
            load("owner/model")


def test_a_model_that_is_not_there_is_named():
    for load in (JeDiPipeline.from_pretrained, JeDiPipeline.from_single_image_model):
        with pytest.raises(ModelError, match="/nowhere/at/all"):
            load("/nowhere/at/all")


def test_what_is_wrong_with_a_model_is_said_once(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    with pytest.raises(
        ModelError, match=r"^You are trying to load the model files of the `variant=fp16`, but"
    ):
        JeDiPipeline.from_pretrained(tmp_path, variant="fp16")


def test_half_precision_samples(tmp_path, photos):
    build(sd_parts()).save_pretrained(tmp_path)
    pipe = JeDiPipeline.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert pipe.unet.dtype == torch.bfloat16
    for coupling in ("joint", "cached"):
        assert latents(pipe, "a dog", photos[:1], coupling=coupling).isfinite().all()
    assert pipe("a dog", photos[:1], num_inference_steps=1).images[0].size == (64, 64)


def test_callbacks_see_what_the_network_takes_the_picture_to_be(pipe, photos, monkeypatch):
    """Of the last step of DDIM that is the result; of the first it is not the noise that goes on."""
    seen = []

    def look(_pipeline, _step, _timestep, tensors):
        seen.append(tensors)

    config = pipe.scheduler.config
    monkeypatch.setattr(pipe, "scheduler", type(pipe.scheduler).from_config(config, set_alpha_to_one=True))
    made = latents(pipe, "a dog", photos[:1], callback_on_step_end=look)
    assert [list(each) for each in seen] == [pipe._callback_tensor_inputs] * 3
    torch.testing.assert_close(seen[-1]["clean_latents"], made, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(seen[0]["clean_latents"], seen[0]["latents"], atol=0.1)


def test_callback_and_interrupt(pipe, photos):
    steps = []

    def stop_after_two(pipeline, step, timestep, values):
        steps.append((step, values["latents"].shape))
        pipeline.interrupt = step == 1
        return {"latents": torch.zeros_like(values["latents"])}

    stopped = latents(pipe, "a dog", photos[:1], num_inference_steps=5, callback_on_step_end=stop_after_two)
    assert steps == [(0, (1, 4, 8, 8)), (1, (1, 4, 8, 8))]
    assert stopped.abs().max() == 0
    assert pipe.num_timesteps == 5
    assert latents(pipe, "a dog", photos[:1]).abs().max() > 0


def test_one_generator_is_the_first_pictures_and_goes_on_in_the_next_call(pipe, photos):
    """As in diffusers: a list of it alone gives the same picture, and each call draws anew from it."""
    alone = [latents(pipe, "a dog", photos[:1], generator=made) for made in (generator(3), [generator(3)])]
    assert torch.equal(*alone)
    one = generator(3)
    calls = [latents(pipe, "a dog", photos[:1], generator=one) for _ in range(2)]
    assert torch.equal(calls[0], alone[0])
    assert not torch.allclose(*calls, atol=1e-3)
    own = generator(3)
    listed = [own, *family_of(own, 3)[1:]]
    both = [
        latents(pipe, "a dog", photos[:1], num_images_per_prompt=3, generator=g)
        for g in (generator(3), listed)
    ]
    assert torch.equal(*both)
    torch.testing.assert_close(both[0][:1], alone[0], rtol=0, atol=1e-4)


def test_no_generator_follows_the_global_seed(pipe):
    torch.manual_seed(0)
    first = latents(pipe, "a dog", generator=None)
    second = latents(pipe, "a dog", generator=None)
    torch.manual_seed(0)
    assert torch.equal(latents(pipe, "a dog", generator=None), first)
    assert not torch.equal(first, second)


def test_given_latents_take_the_place_of_the_targets_noise_alone(pipe, photos):
    noise = torch.randn(2, 4, 8, 8, generator=generator(7))
    pair = [generator(1), generator(2)]
    both = latents(pipe, ["a dog", "a robot"], photos[:1], latents=noise, generator=pair)
    for number, prompt in enumerate(("a dog", "a robot")):
        own = generator(number + 1)
        alone = latents(pipe, prompt, photos[:1], latents=noise[number : number + 1], generator=own)
        torch.testing.assert_close(alone, both[number : number + 1], rtol=0, atol=1e-4)
    drawn = torch.randn(1, 4, 8, 8, generator=generator(5))
    given, own = (
        latents(pipe, "a dog", **{"generator": generator(5)} | more) for more in ({"latents": drawn}, {})
    )
    assert torch.equal(given, own)
    for wrong in (drawn[:, :3], drawn[..., :4], drawn.expand(2, -1, -1, -1), drawn * NAN):
        with pytest.raises(UsageError, match="latents"):
            latents(pipe, "a dog", latents=wrong)


def test_switches_of_diffusers_leave_the_coupling_in_place(photos):
    pipe = JeDiPipeline(**build(sd_parts()).components, distance_slope=2.0)
    pipe.set_progress_bar_config(disable=True)
    before = latents(pipe, "a dog", photos[:2])
    switches = [
        pipe.enable_attention_slicing,
        lambda: pipe.enable_attention_slicing(1),
        pipe.disable_attention_slicing,
        lambda: pipe.unet.set_attn_processor(AttnProcessor2_0()),
    ]
    for switch in switches:
        switch()
        torch.testing.assert_close(latents(pipe, "a dog", photos[:2]), before, rtol=1e-4, atol=1e-4)
        assert coupled_slope(pipe.unet) == 2


def test_words_the_model_never_saw_are_named_once(photos, caplog):
    pipe = build(sd_parts() | {"tokenizer": make_tokenizer(whole_words=list(WORDS))})
    with caplog.at_level(logging.WARNING):
        latents(pipe, ["a zebra", "a zebra in the fog"], photos[:1], reference_prompts="a dog")
    named = [record.getMessage() for record in caplog.records if "zebra" in record.getMessage()]
    assert named == ["The model does not know these words and leaves them out: zebra, fog."]


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reference_prompts": ["a dog"] * 3}, "3 reference prompts for 2 references"),
        ({"guidance_scale": NAN}, "guidance_scale"),
        ({"guidance_scale": INF}, "guidance_scale"),
        ({"image_guidance_scale": NAN}, "image_guidance_scale"),
        ({"guidance_mode": "both"}, "text_first"),
        ({"coupling": "loose"}, "cached"),
        ({"null_set": "none"}, "single"),
        ({"output_type": "jpg"}, "latent"),
        ({"num_inference_steps": 0}, "1 to 1000"),
        ({"num_inference_steps": 1_000_000}, "1 to 1000"),
        ({"num_inference_steps": 2.5}, "whole number"),
        ({"num_images_per_prompt": 0}, "num_images_per_prompt"),
        ({"prompt": []}, "no prompt"),
        ({"prompt": "a\0dog"}, "NUL"),
        ({"reference_prompts": "a\0dog"}, "NUL"),
        ({"height": 60}, "multiple of 8"),
        ({"width": -8}, "width"),
        ({"generator": [generator()] * 3}, "3 generators for 1 pictures"),
        ({"joint_targets": True, "coupling": "cached"}, "joint_targets"),
        ({"guidance_start": 1.5}, "guidance_start is 1.5, but must lie between 0 and 1"),
        ({"guidance_start": 0.8, "guidance_stop": 0.2}, "must not lie beyond guidance_stop"),
        ({"references_start": 0.8, "references_stop": 0.2}, "must not lie beyond references_stop"),
        ({"references_stop": 1.2}, "references_stop is 1.2, but must lie between 0 and 1"),
        ({"coupled_layers": "upper"}, "coupled_layers names 'upper', but the 4 attention layers"),
        (
            {"coupled_layers": "up", "denoiser": print, "coupling": "joint"},
            "says which layers couple: leave coupled_layers out",
        ),
    ],
)
def test_bad_requests_are_refused_before_any_network_runs(pipe, photos, monkeypatch, settings, message):
    for part in (pipe.unet, pipe.text_encoder):
        monkeypatch.setattr(part, "forward", lambda *_, **__: pytest.fail("a network ran"))
    monkeypatch.setattr(pipe.vae, "encode", lambda *_, **__: pytest.fail("a network ran"))
    with pytest.raises(UsageError, match=message):
        pipe(**{"prompt": "a dog", "references": photos[:2]} | settings)


def test_lcm_says_when_it_cannot_take_so_many_steps(pipe, monkeypatch):
    monkeypatch.setattr(pipe, "scheduler", LCMScheduler.from_config(pipe.scheduler.config))
    with pytest.raises(UsageError, match="LCMScheduler cannot sample in 500 steps"):
        pipe("a dog", num_inference_steps=500)


def test_one_picture_or_a_tensor_of_pictures_are_references_too(pipe, photos):
    assert torch.equal(latents(pipe, "a dog", photos[0]), latents(pipe, "a dog", photos[:1]))
    stack = torch.rand(2, 3, 64, 64, generator=generator())
    assert torch.equal(latents(pipe, "a dog", stack), latents(pipe, "a dog", list(stack)))
