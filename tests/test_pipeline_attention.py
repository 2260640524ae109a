"""A call of the pipeline that records attention: which branch, steps and target, and the same pictures."""

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, LCMScheduler
from PIL import Image

from jedi_diffusion.backbones.unet import make_joint
from jedi_diffusion.errors import UsageError
from jedi_diffusion.joint.guidance import MODES
from jedi_diffusion.joint.record import AttentionRecord
from jedi_diffusion.pipeline import JeDiPipeline
from tests.helpers.small_pipelines import sd_parts

POINT = (0.3, 0.6)


@pytest.fixture(scope="module")
def pipe():
    unet = make_joint(sd_parts()["unet"])
    with torch.no_grad():
        unet.conv_in.weight[:, 4:].normal_(std=0.05, generator=torch.Generator().manual_seed(1))
    pipe = JeDiPipeline(**sd_parts() | {"unet": unet})
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def photos():
    draw = np.random.default_rng(0)
    return [Image.fromarray(draw.integers(0, 256, (64, 64, 3), dtype=np.uint8)) for _ in range(3)]


def sample(pipe, prompt, references, record=None, **settings):
    defaults = {
        "num_inference_steps": 3,
        "generator": torch.Generator().manual_seed(0),
        "output_type": "latent",
    }
    return pipe(prompt, references, attention_record=record, **defaults | settings).images


def assert_same_maps(first, second, tolerance=0.0):
    for one, two in zip(first, second, strict=True):
        torch.testing.assert_close(one.weights, two.weights, rtol=0, atol=tolerance)
        assert (one.size, one.tokens, one.own) == (two.size, two.tokens, two.own)


@pytest.mark.parametrize("coupling", ["joint", "cached"])
@pytest.mark.parametrize("mode", MODES)
def test_pictures_are_the_same_with_and_without(pipe, photos, mode, coupling):
    settings = {"guidance_mode": mode, "image_guidance_scale": 2.0, "coupling": coupling}
    plain = sample(pipe, ["a dog", "a robot"], photos[:2], **settings)
    record = AttentionRecord(POINT)
    assert torch.equal(plain, sample(pipe, ["a dog", "a robot"], photos[:2], record, **settings))
    for target in (0, 1):
        for each in record.maps(target):
            assert each.weights.shape[1] == 3
            assert (each.own, each.steps) == (2, 3)
            torch.testing.assert_close(each.weights.sum((1, 2, 3)), torch.ones(len(each.tokens)))


@pytest.mark.parametrize("scheduler", [DPMSolverMultistepScheduler, LCMScheduler])
def test_other_schedulers_are_left_alone_too(pipe, photos, scheduler):
    other = JeDiPipeline(**pipe.components | {"scheduler": scheduler.from_config(pipe.scheduler.config)})
    other.set_progress_bar_config(disable=True)
    plain = sample(other, "a dog", photos[:1])
    assert torch.equal(plain, sample(other, "a dog", photos[:1], AttentionRecord(POINT)))


@pytest.mark.parametrize("coupling", ["joint", "cached"])
@pytest.mark.parametrize("null_set", ["joint", "single"])
@pytest.mark.parametrize("mode", MODES)
def test_only_the_branch_with_all_conditions_is_recorded(pipe, photos, mode, null_set, coupling):
    """At the first step all scales see the same noise: scale 1, a single branch, records the same."""
    settings = {"coupling": coupling, "null_set": null_set, "reference_prompts": "a robot"}
    alone, guided = AttentionRecord(POINT, steps=[0]), AttentionRecord(POINT, steps=[0])
    sample(pipe, "a dog", photos[:2], alone, guidance_scale=1.0, **settings)
    sample(pipe, "a dog", photos[:2], guided, guidance_mode=mode, image_guidance_scale=2.0, **settings)
    assert_same_maps(alone.maps(), guided.maps(), 1e-5)
    other = AttentionRecord(POINT, steps=[0])
    sample(pipe, "a robot on the beach", photos[:2], other, guidance_scale=1.0, **settings)
    differ = [
        (one.weights - two.weights).abs().max() for one, two in zip(alone.maps(), other.maps(), strict=True)
    ]
    assert max(differ) > 1e-4


@pytest.mark.parametrize("coupling", ["joint", "cached"])
def test_a_target_has_the_same_maps_alone_and_in_a_larger_call(pipe, photos, coupling):
    together, alone = AttentionRecord(POINT), AttentionRecord(POINT)
    own = [torch.Generator().manual_seed(seed) for seed in (5, 6)]
    sample(pipe, ["a dog", "a robot"], photos, together, coupling=coupling, generator=own)
    own = [torch.Generator().manual_seed(6)]
    sample(pipe, "a robot", photos, alone, coupling=coupling, generator=own)
    assert_same_maps(alone.maps(), together.maps(1), 1e-4)


def test_joint_targets_share_a_set(pipe, photos):
    record = AttentionRecord(POINT)
    sample(pipe, ["a dog", "a robot"], photos[:2], record, joint_targets=True)
    assert [(each.weights.shape[1], each.own) for each in record.maps(0)] == [(4, 2)] * len(record.maps(0))
    assert [each.own for each in record.maps(1)] == [3] * len(record.maps(1))


def test_pictures_need_not_be_square(pipe, photos):
    record = AttentionRecord((0.99, 0.0))
    sample(pipe, "a dog", photos[:1], record, height=64, width=96)
    assert record.maps()[0].size == (8, 12)
    assert record.maps()[0].tokens[0] == 11


def test_calls_that_cannot_be_recorded_are_refused_before_they_start(pipe, photos):
    def never(*_):
        pytest.fail("sampling began")

    for prompts, references, settings, words in [
        ("a dog", (), {}, "Without a reference"),
        (["a dog", "a robot"], (), {"joint_targets": True}, "Without a reference"),
        ("a dog", photos[:1], {"guidance_scale": 0.0}, "scales of guidance"),
        (
            "a dog",
            photos[:1],
            {"guidance_mode": "text_first", "image_guidance_scale": 0.0},
            "scales of guidance",
        ),
    ]:
        with pytest.raises(UsageError, match=words):
            sample(pipe, prompts, references, AttentionRecord(POINT), callback_on_step_end=never, **settings)
    record = AttentionRecord(POINT)
    sample(pipe, "a dog", photos[:1], record, guidance_mode="text_only", guidance_scale=0.0)
    assert record.maps()
    with pytest.raises(UsageError, match="already holds"):
        sample(pipe, "a dog", photos[:1], record)


def test_the_bundled_model_looks_at_the_subject():
    """Of what a token in the middle gives to the reference, the subject gets more than its area's share."""
    from jedi_toybox import load_pipeline, world

    toybox = load_pipeline()
    toybox.set_progress_bar_config(disable=True)
    subjects = [world.sample_subject(seed, split="held_out") for seed in range(50, 54)]
    specs = [world.sample_picture(subject, 0, style="", attribute="") for subject in subjects]
    rendered = world.render(specs, size=64)
    found = []
    for spec, picture, mask in zip(specs, rendered.pictures, rendered.masks, strict=True):
        record = AttentionRecord((0.5, 0.55), steps=range(3))
        settings = {"coupling": "cached", "reference_prompts": spec.caption, "guidance_scale": 1.0}
        reference = Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())
        prompt = f"a {spec.subject.noun} on the beach"
        sample(toybox, prompt, [reference], record, num_inference_steps=4, **settings)
        finest = record.maps()[0]
        given = finest.weights[0, 0]
        subject = torch.nn.functional.adaptive_avg_pool2d(mask[None].float(), finest.size)[0]
        found.append((float((given * subject).sum() / given.sum()), float(subject.mean())))
    on_subject, area = np.mean(found, axis=0)
    assert on_subject > 1.3 * area
