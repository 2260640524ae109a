"""FLUX.1 and SD3 folders as they are published, through `JeDiPipeline`, against diffusers' own pipelines."""

import logging
import shutil

import numpy as np
import pytest
import torch
from diffusers import FluxFillPipeline, FluxKontextPipeline, FluxPipeline, StableDiffusion3Pipeline
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.pipelines.flux import pipeline_flux_kontext
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from PIL import Image

from jedi_diffusion import JeDiPipeline
from jedi_diffusion.errors import ModelError, UsageError
from jedi_diffusion.models import open_base
from tests.helpers.small_mmdit import SD35_MEDIUM
from tests.helpers.small_published import flux_parts, sd3_parts

SIZE = {"height": 64, "width": 96}
PROMPT = "a dog on the beach"
FILL = {"in_channels": 16 * 2 + 256, "out_channels": 16}
KINDS = {
    "flux-dev": (FluxPipeline, lambda: flux_parts(guidance_embeds=True)),
    "flux-schnell": (FluxPipeline, flux_parts),
    "kontext": (FluxKontextPipeline, lambda: flux_parts(guidance_embeds=True)),
    "fill": (FluxFillPipeline, lambda: flux_parts(guidance_embeds=True, **FILL)),
    "sd3": (StableDiffusion3Pipeline, sd3_parts),
    "sd3.5-medium": (StableDiffusion3Pipeline, lambda: sd3_parts(dynamic=True, **SD35_MEDIUM)),
    "sd3-without-t5": (StableDiffusion3Pipeline, lambda: sd3_parts(t5=False)),
}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """By kind: the folder and diffusers' pipeline, made when first asked for."""
    made = {}

    def of(kind):
        if kind not in made:
            maker, parts = KINDS[kind]
            pipe, folder = maker(**parts()), tmp_path_factory.mktemp("published") / kind
            pipe.save_pretrained(folder, max_shard_size="40KB")
            pipe.set_progress_bar_config(disable=True)
            made[kind] = (folder, pipe)
        return made[kind]

    return of


def opened(folder):
    pipe = open_base(str(folder))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def seeded(seed=3):
    return torch.Generator().manual_seed(seed)


def photo(width=80, height=112, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


def unpacked(latents):
    """Of FLUX.1, whose pipelines return tokens."""
    return FluxPipeline._unpack_latents(latents, 64, 96, 8) if latents.ndim == 3 else latents


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "fill"])
def test_text_to_image_equals_diffusers_with_the_same_seed(published, kind):
    folder, theirs = published(kind)
    options = {"max_area": 64 * 96} if kind == "kontext" else {}
    want = theirs(
        prompt=PROMPT, num_inference_steps=3, generator=seeded(), output_type="latent", **SIZE, **options
    ).images
    got = opened(folder)(PROMPT, num_inference_steps=3, generator=seeded(), output_type="latent", **SIZE)
    torch.testing.assert_close(got.images, unpacked(want), atol=1e-4, rtol=0)


def test_kontext_with_a_reference_equals_diffusers(published, monkeypatch):
    monkeypatch.setattr(
        pipeline_flux_kontext, "PREFERRED_KONTEXT_RESOLUTIONS", [(64, 96), (96, 64), (80, 80)]
    )
    folder, theirs = published("kontext")
    options = {"num_inference_steps": 3, "output_type": "latent", **SIZE}
    want = theirs(photo(), PROMPT, max_area=64 * 96, generator=seeded(), **options).images
    got = opened(folder)(PROMPT, [photo()], generator=seeded(), **options).images
    torch.testing.assert_close(got, unpacked(want), atol=1e-4, rtol=0)


def test_fill_with_nothing_given_equals_diffusers(published, monkeypatch):
    """Its pipeline samples the encoding of the grey image, where ours takes the mode."""
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())
    folder, theirs = published("fill")
    noise = torch.randn(1, 4, 8, 12, generator=seeded())
    images = {"image": torch.full((1, 3, 64, 96), 0.5), "mask_image": torch.ones(1, 1, 64, 96)}
    options = {"num_inference_steps": 3, "output_type": "latent", **SIZE}
    packed = FluxPipeline._pack_latents(noise, 1, 4, 8, 12)
    want = theirs(PROMPT, **images, latents=packed, **options).images
    got = opened(folder)(PROMPT, latents=noise, **options).images
    torch.testing.assert_close(got, unpacked(want), atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["kontext", "flux-dev", "sd3.5-medium"])
@pytest.mark.parametrize("coupling", ["joint", "cached"])
def test_references_and_further_targets_have_an_effect_in_either_coupling(
    published, kind, coupling, monkeypatch, caplog
):
    monkeypatch.setattr(pipeline_flux_kontext, "PREFERRED_KONTEXT_RESOLUTIONS", [(64, 96), (96, 64)])
    pipe, options = opened(published(kind)[0]), {"num_inference_steps": 2, "output_type": "latent", **SIZE}

    def draw(*references, **more):
        return pipe(PROMPT, references, generator=seeded(), coupling=coupling, **options, **more).images

    with caplog.at_level(logging.WARNING):
        one, other, both = draw(photo()), draw(photo(seed=1)), draw(photo(), photo(112, 80, seed=1))
    assert len({float(each.sum()) for each in (one, other, both)}) == 3
    untrained = [each for each in caplog.messages if "not trained with coupling 'cached'" in each]
    assert len(untrained) == (coupling == "cached")
    if coupling == "joint":
        together, alone = (
            pipe(
                [PROMPT, "a dog in snow"],
                [photo()],
                joint_targets=joint,
                generator=[seeded(3), seeded(4)],
                **options,
            ).images
            for joint in (True, False)
        )
        torch.testing.assert_close(alone[:1], one, atol=1e-5, rtol=0)
        assert not torch.allclose(together[0], alone[0], atol=1e-4)


@pytest.mark.parametrize("kind", ["kontext", "flux-schnell", "sd3.5-medium"])
def test_a_saved_model_is_loaded_as_it_was(published, kind, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline_flux_kontext, "PREFERRED_KONTEXT_RESOLUTIONS", [(64, 96)])
    pipe, options = opened(published(kind)[0]), {"num_inference_steps": 2, "output_type": "np", **SIZE}
    pipe.save_pretrained(tmp_path)
    again = opened(tmp_path)
    assert again.backbone.clean_references is (kind == "kontext")
    one, two = (each(PROMPT, [photo()], generator=seeded(), **options).images for each in (pipe, again))
    np.testing.assert_allclose(one, two, atol=1e-4)


def test_bad_input_is_refused_in_a_sentence(published):
    for kind in ("flux-schnell", "sd3"):
        pipe = opened(published(kind)[0])
        with pytest.raises(UsageError, match="height must be a multiple of 16 pixels, not 72"):
            pipe(PROMPT, height=72, width=64)
    with pytest.raises(UsageError, match="reads 24 at most"):
        pipe(PROMPT, height=208, width=64, num_inference_steps=1)


def test_weights_that_do_not_fit_are_named(published, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(published("sd3")[0], broken)
    config = broken / "transformer/config.json"
    config.write_text(config.read_text().replace('"num_layers": 3', '"num_layers": 4'))
    with pytest.raises(ModelError, match=r"transformer does not fit .*transformer_blocks\.2"):
        JeDiPipeline.from_pretrained(broken)


@pytest.mark.parametrize("kind", ["flux-schnell", "sd3.5-medium"])
def test_adapters_are_read_in_the_formats_of_the_family(published, kind, tmp_path):
    """As diffusers' own pipelines write them, on every layer that training puts them on."""
    folder, theirs = published(kind)
    ours, options = opened(folder), {"num_inference_steps": 1, "output_type": "latent", **SIZE}
    plain = ours(PROMPT, generator=seeded(), **options).images
    config = LoraConfig(r=2, lora_alpha=2, target_modules=ours.backbone.lora_targets, init_lora_weights=False)
    theirs.transformer.add_adapter(config)
    state = get_peft_model_state_dict(theirs.transformer)
    type(theirs).save_lora_weights(tmp_path, transformer_lora_layers=state)
    want = unpacked(theirs(prompt=PROMPT, generator=seeded(), **options).images)
    theirs.transformer.delete_adapters("default")
    ours.load_lora_weights(tmp_path)
    got = ours(PROMPT, generator=seeded(), **options).images
    torch.testing.assert_close(got, want, atol=1e-4, rtol=0)
    assert (got - plain).abs().max() > 1e-3
