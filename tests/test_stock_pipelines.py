"""The pipeline against other programs of the same: diffusers' own pipelines where nothing is joint, and the
paper's sampling written out by hand where references are there.
"""

from itertools import product

import numpy as np
import pytest
import torch
from diffusers import (
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from PIL import Image

from jedi_diffusion.backbones.unet import make_joint
from jedi_diffusion.joint.attention import SetReads
from jedi_diffusion.joint.guidance import MODES
from jedi_diffusion.models import SCHEDULERS, set_scheduler
from jedi_diffusion.pipeline import JeDiPipeline
from tests.helpers.small_pipelines import sd_parts, sdxl_parts

STEPS = 4
PROMPT, CAPTION = "a dog on the beach", "a robot"
TEXT, IMAGE = 3.0, 2.0  # scales


@pytest.fixture(scope="module", params=["sd", "sdxl"])
def base_and_joint(request, tmp_path_factory):
    """A stock pipeline, and the untrained joint one that is made from its folder."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "sd":
        stock = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
        StableDiffusionPipeline(**sd_parts(), **stock).save_pretrained(folder)
        base = StableDiffusionPipeline.from_pretrained(folder, **stock)
    else:
        StableDiffusionXLPipeline(**sdxl_parts(), add_watermarker=False).save_pretrained(folder)
        base = StableDiffusionXLPipeline.from_pretrained(folder, add_watermarker=False)
    joint = JeDiPipeline.from_single_image_model(folder)
    for pipe in (base, joint):
        pipe.set_progress_bar_config(disable=True)
    return base, joint


@pytest.mark.parametrize("given", ["generator", "latents"])
@pytest.mark.parametrize("scheduler", ["model", *SCHEDULERS])
def test_without_references_every_scheduler_gives_the_stock_pictures(base_and_joint, scheduler, given):
    """The same call of both, noise of the steps (lcm) included: the same picture to 1e-5."""
    before = [pipe.scheduler for pipe in base_and_joint]
    made = []
    try:
        for pipe in base_and_joint:
            set_scheduler(pipe, scheduler)
            settings = {"num_inference_steps": STEPS, "guidance_scale": 5.0, "output_type": "latent"}
            settings["generator"] = torch.Generator().manual_seed(3)
            if given == "latents":
                settings["latents"] = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(4))
            made.append(pipe(PROMPT, **settings).images)
    finally:
        for pipe, own in zip(base_and_joint, before, strict=True):
            pipe.scheduler = own
    theirs, ours = made
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_an_inpainting_checkpoint_sees_what_it_was_trained_with(tmp_path):
    """Without references the joint model is the inpainting pipeline with everything to be filled."""
    parts, stock = sd_parts(in_channels=9), {"safety_checker": None, "feature_extractor": None}
    with torch.no_grad():  # the stock pipeline samples the encoding of grey; here it has no spread
        parts["vae"].quant_conv.weight[4:] = 0
        parts["vae"].quant_conv.bias[4:] = -30
    base = StableDiffusionInpaintPipeline(**parts, **stock, requires_safety_checker=False)
    base.save_pretrained(tmp_path / "base")
    base.set_progress_bar_config(disable=True)
    JeDiPipeline.from_single_image_model(tmp_path / "base").save_pretrained(tmp_path / "joint")
    joint = JeDiPipeline.from_pretrained(tmp_path / "joint")
    joint.set_progress_bar_config(disable=True)
    assert joint.config.targets_show == "grey"
    settings = {"num_inference_steps": STEPS, "guidance_scale": 5.0, "output_type": "latent"}
    settings["latents"] = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(4))
    everything = {"image": torch.rand(1, 3, 64, 64), "mask_image": torch.ones(1, 1, 64, 64), "strength": 1.0}
    theirs = base(PROMPT, **everything, height=64, width=64, **settings).images
    torch.testing.assert_close(joint(PROMPT, **settings).images, theirs, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def trained():
    """A joint pipeline whose input for references counts."""
    parts = sd_parts()
    unet = make_joint(parts["unet"])
    with torch.no_grad():
        unet.conv_in.weight[:, 4:].normal_(std=0.05, generator=torch.Generator().manual_seed(1))
    pipe = JeDiPipeline(**parts | {"unet": unet})
    pipe.set_progress_bar_config(disable=True)
    return pipe


def photos(count):
    draw = np.random.default_rng(0)
    return [Image.fromarray(draw.integers(0, 256, (64, 64, 3), dtype=np.uint8)) for _ in range(count)]


@torch.no_grad()
def by_hand(pipe, references, mode, null_set, match_norms=False):
    """Sections 3.2 and 3.3, with nothing of the package but the joint UNet: one set, one forward a branch."""
    embed = {}
    for text in (PROMPT, CAPTION, ""):
        ids = pipe.tokenizer(text, padding="max_length", max_length=16, return_tensors="pt").input_ids
        embed[text] = pipe.text_encoder(ids).last_hidden_state
    given = torch.zeros(0, 4, 8, 8)
    if references:
        pixels = torch.stack([torch.from_numpy(np.array(each)).permute(2, 0, 1) for each in references])
        given = pipe.vae.encode(pixels / 127.5 - 1).latent_dist.mode() * pipe.vae.config.scaling_factor
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(1, 4, 8, 8, generator=generator)
    noise = torch.cat([torch.randn(1, 4, 8, 8, generator=generator) for _ in references] or [given])

    def predict(target, t, has_text, has_pictures):
        known = abar[t].sqrt() * given + (1 - abar[t]).sqrt() * noise  # the replacement trick
        if not has_pictures and null_set == "single":
            known = known[:0]
        count = len(known)
        mask, shown = torch.ones(count + 1, 1, 8, 8), torch.zeros(count + 1, 4, 8, 8)
        if has_pictures:
            mask[:count], shown[:count] = 0, given
        captions = [CAPTION] * count + [PROMPT] if has_text else [""] * (count + 1)
        return pipe.unet(
            torch.cat([torch.cat([known, target]), mask, shown], dim=1),
            t,
            encoder_hidden_states=torch.cat([embed[text] for text in captions]),
            cross_attention_kwargs={"reads": SetReads((count + 1,))},
        ).sample[-1:]

    abar = pipe.scheduler.alphas_cumprod
    steps = [751, 501, 251, 1]  # of 1000, "leading" with an offset of 1
    for t, after in zip(steps, [501, 251, 1, None], strict=True):
        e = predict(target, t, True, True)
        if mode == "joint":  # eq. 3
            e0 = predict(target, t, False, False)
            e = e0 + TEXT * (e - e0)
        elif mode == "text_only":
            e1 = predict(target, t, False, True)
            e = e1 + TEXT * (e - e1)
        else:  # eq. 4
            e0 = predict(target, t, False, False)
            e1 = predict(target, t, mode == "text_first", mode == "image_first")
            first, second = (TEXT, IMAGE) if mode == "text_first" else (IMAGE, TEXT)
            a, b = e1 - e0, e - e1
            if match_norms:
                a, b = (d / d.norm() * min(a.norm(), b.norm()) for d in (a, b))
            e = e0 + first * a + second * b
        x0 = (target - (1 - abar[t]).sqrt() * e) / abar[t].sqrt()
        last = abar[0] if after is None else abar[after]
        target = last.sqrt() * x0 + (1 - last).sqrt() * e
    return target


@pytest.mark.parametrize(
    ("mode", "null_set", "references", "match_norms"),
    [
        *((*each, False) for each in product(MODES, ("joint", "single"), (0, 1, 3))),
        ("text_first", "single", 1, True),
        ("image_first", "joint", 3, True),
    ],
)
def test_the_papers_sampling_written_out_by_hand(trained, mode, null_set, references, match_norms):
    given = photos(references)
    ours = trained(
        PROMPT,
        given,
        reference_prompts=CAPTION,
        num_inference_steps=STEPS,
        guidance_mode=mode,
        guidance_scale=TEXT,
        image_guidance_scale=IMAGE,
        match_norms=match_norms,
        null_set=null_set,
        coupling="joint",
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
    ).images
    want = by_hand(trained, given, mode, null_set, match_norms)
    torch.testing.assert_close(ours, want, rtol=1e-4, atol=1e-4)
