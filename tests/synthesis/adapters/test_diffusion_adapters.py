"""The three diffusion adapters: against the pipelines themselves, sizes, seeds and batches."""

import json
import logging
import shutil

import numpy as np
import pytest
from diffusers import (
    StableDiffusionInpaintPipeline,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionXLPipeline,
)
from PIL import Image

from jedi_diffusion.randomness import seeded_generator as seeded
from jedi_diffusion.synthesis.adapters.pipelines import (
    InstructPix2PixStylizer,
    PipelineInpainter,
    TextToImageGenerator,
)
from jedi_diffusion.synthesis.adapters.settings import (
    InpaintingSettings,
    InstructPix2PixSettings,
    TextToImageSettings,
)

PROMPTS = ["a robot", "the dog on the beach", "snow", "a dog in snow", "robot"]
SEEDS = [3, 2**63 - 1, 0, 3, 8]
KINDS = {
    "sdxl": (TextToImageGenerator, TextToImageSettings),
    "inpainting": (PipelineInpainter, InpaintingSettings),
    "pix2pix": (InstructPix2PixStylizer, InstructPix2PixSettings),
}


@pytest.fixture(scope="module")
def make(checkpoint):
    kept = {}

    def build(name, **changes):
        key = name, json.dumps(changes)
        if key not in kept:
            adapter, settings = KINDS[name]
            kept[key] = adapter(settings(**{"model": str(checkpoint(name)), "steps": 2, **changes}), "cpu")
        return kept[key]

    return build


@pytest.fixture(scope="module")
def masks(pictures):
    made = [Image.new("L", picture.size, 255) for picture in pictures]
    for number, mask in enumerate(made):
        mask.paste(0, (10, 10, 30 + number, 40))
    return made


def far(one, other):
    """Largest difference of two pictures' pixels, in 0..255."""
    assert one.size == other.size
    assert one.mode == other.mode == "RGB"
    return int(np.abs(np.asarray(one).astype(int) - np.asarray(other).astype(int)).max())


def quiet(pipeline):
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_a_collage_is_what_the_pipeline_draws(make, checkpoint):
    generator = make("sdxl")
    pictures = generator.generate(PROMPTS[:2], SEEDS[:2], (64, 48))
    pipeline = quiet(StableDiffusionXLPipeline.from_pretrained(checkpoint("sdxl"), add_watermarker=False))
    for picture, prompt, seed in zip(pictures, PROMPTS, SEEDS, strict=False):
        (wanted,) = pipeline(
            prompt,
            generator=seeded(seed),
            width=64,
            height=48,
            num_inference_steps=2,
            guidance_scale=5.0,
        ).images
        assert far(picture, wanted) <= 1
    assert far(*pictures) > 20


def test_a_scene_is_what_the_pipeline_fills_in(make, checkpoint, pictures, masks):
    (found,) = make("inpainting").inpaint(pictures[1:2], masks[1:2], PROMPTS[:1], [4])
    pipeline = quiet(
        StableDiffusionInpaintPipeline.from_pretrained(checkpoint("inpainting"), safety_checker=None)
    )
    (wanted,) = pipeline(
        PROMPTS[0],
        pictures[1],
        masks[1],
        width=72,
        height=56,
        num_inference_steps=2,
        generator=seeded(4),
    ).images
    assert far(found, wanted) <= 1
    (other,) = make("inpainting").inpaint(pictures[1:2], masks[:1], PROMPTS[:1], [4])
    assert far(found, other) > 1


def test_a_style_is_what_the_pipeline_makes_of_the_picture(make, checkpoint, pictures, monkeypatch):
    (found,) = make("pix2pix").stylize(pictures[1:2], PROMPTS[:1], [4])
    pipeline = quiet(
        StableDiffusionInstructPix2PixPipeline.from_pretrained(checkpoint("pix2pix"), safety_checker=None)
    )
    (wanted,) = pipeline(PROMPTS[0], pictures[1], num_inference_steps=2, generator=seeded(4)).images
    assert far(found, wanted) <= 1
    monkeypatch.setattr(make("pix2pix"), "_image_guidance", 4.0)
    (other,) = make("pix2pix").stylize(pictures[1:2], PROMPTS[:1], [4])
    assert far(found, other) > 1


@pytest.mark.parametrize("name", KINDS)
def test_a_picture_is_the_same_in_any_batch(make, name, pictures, masks, monkeypatch):
    def run(adapter, places):
        prompts, seeds = [PROMPTS[place] for place in places], [SEEDS[place] for place in places]
        shown, holes = [pictures[place] for place in places], [masks[place] for place in places]
        if name == "sdxl":
            return adapter.generate(prompts, seeds, (64, 64))
        if name == "inpainting":
            return adapter.inpaint(shown, holes, prompts, seeds)
        return adapter.stylize(shown, prompts, seeds)

    adapter = make(name)
    together = run(adapter, range(5))
    monkeypatch.setattr(adapter, "batch_size", 2)
    pairs = run(adapter, range(4, -1, -1))[::-1]
    for place, (picture, pair) in enumerate(zip(together, pairs, strict=True)):
        assert far(picture, pair) <= 2
        if place % 3 == 0:
            assert far(picture, run(adapter, [place])[0]) <= 2
    assert far(together[0], together[4]) > 10
    assert run(make(name), []) == []


def test_reduced_precision_draws_nearly_the_same(make):
    (whole,) = make("sdxl").generate(["a robot"], [0], (32, 32))
    (rounded,) = make("sdxl", dtype="bfloat16", steps=2).generate(["a robot"], [0], (32, 32))
    assert 0 < far(whole, rounded) < 60


def test_sizes_that_the_autoencoder_does_not_divide_are_kept(make, pictures, masks):
    odd = [pictures[0].resize((61, 45)), pictures[2].resize((64, 64))]
    holes = [masks[0].resize((61, 45)), masks[2]]
    assert [each.size for each in make("sdxl").generate(["a"], [0], (60, 52))] == [(60, 52)]
    assert [each.size for each in make("inpainting").inpaint(odd, holes, ["a", "b"], [0, 1])] == [
        (61, 45),
        (64, 64),
    ]
    assert [each.size for each in make("pix2pix").stylize(odd, ["a", "b"], [0, 1])] == [(61, 45), (64, 64)]


def test_a_safety_checker_is_not_loaded(checkpoint, tmp_path, pictures):
    copy = shutil.copytree(checkpoint("pix2pix"), tmp_path / "checked")
    index = json.loads((copy / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    (copy / "model_index.json").write_text(json.dumps(index | {"requires_safety_checker": True}))
    stylizer = InstructPix2PixStylizer(InstructPix2PixSettings(model=str(copy), steps=1), "cpu")
    assert stylizer.pipeline.safety_checker is None
    assert stylizer.stylize(pictures[:1], ["a"], [0])[0].size == pictures[0].size


def test_long_prompts_are_reported_once(make, caplog):
    generator = make("sdxl")

    def reports():
        return [each.getMessage() for each in caplog.records if each.name.startswith("jedi_diffusion")]

    with caplog.at_level(logging.WARNING, logger="jedi_diffusion"):
        generator.generate(["a robot"], [0], (16, 16))
        assert not reports()
        generator.generate(["a robot on the beach " * 20, "a"], [0, 1], (16, 16))
        generator.generate(["a robot on the beach " * 20], [0], (16, 16))
    (report,) = reports()
    assert "reads 16 tokens of a prompt; one of 102 tokens loses its end" in report


def test_the_fingerprint_says_what_decides(make):
    first = make("sdxl").fingerprint
    assert first.startswith("StableDiffusionXLPipeline blake2b:")
    assert '"steps": 2' in first
    other = make("sdxl", batch_size=2, negative_prompt="snow").fingerprint
    assert other.replace('"snow"', "null") == first != other
    assert make("inpainting").fingerprint.split()[1] != first.split()[1]


def test_a_negative_prompt_is_heard(make):
    (plain,) = make("sdxl").generate(["a robot"], [0], (32, 32))
    (other,) = make("sdxl", batch_size=2, negative_prompt="snow").generate(["a robot"], [0], (32, 32))
    assert far(plain, other) > 1
