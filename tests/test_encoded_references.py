"""References that are read once and given to many calls: the same pictures as from the photos."""

import pytest
import torch
from diffusers.pipelines.flux import pipeline_flux_kontext
from peft import LoraConfig

from jedi_diffusion import JeDiPipeline
from jedi_diffusion.errors import UsageError
from tests.helpers.small_klein import klein_parts
from tests.helpers.small_pipelines import sd_parts, sdxl_parts
from tests.helpers.small_published import flux_parts, sd3_parts

SIZE = {"height": 64, "width": 64}
MAKERS = {
    "sd": lambda: JeDiPipeline(**sd_parts(in_channels=9)),
    "sdxl": lambda: JeDiPipeline(**sdxl_parts() | {"unet": sdxl_joint()}),
    "klein": lambda: JeDiPipeline(**klein_parts(), unet=None),
    "kontext": lambda: JeDiPipeline(**flux_parts(guidance_embeds=True), unet=None),
    "flux": lambda: JeDiPipeline(**flux_parts(), unet=None, clean_references=False),
    "sd3": lambda: JeDiPipeline(**sd3_parts(), unet=None),
}


def sdxl_joint():
    from jedi_diffusion.backbones.unet import make_joint

    unet = make_joint(sdxl_parts()["unet"])
    with torch.no_grad():
        unet.conv_in.weight[:, 4:].normal_(std=0.05, generator=torch.Generator().manual_seed(1))
    return unet


@pytest.fixture(scope="module")
def pipes():
    """By family, made when first asked for."""
    made = {}

    def of(kind):
        if kind not in made:
            made[kind] = MAKERS[kind]()
            made[kind].set_progress_bar_config(disable=True)
        return made[kind]

    return of


@pytest.fixture(autouse=True)
def small_sizes(monkeypatch):
    monkeypatch.setattr(pipeline_flux_kontext, "PREFERRED_KONTEXT_RESOLUTIONS", [(64, 64), (96, 64)])


def photos(count, side=64):
    draw = torch.Generator().manual_seed(1)
    return [torch.rand(3, side + 32 * (number % 2), side, generator=draw) for number in range(count)]


def call(pipe, references, prompts=("a dog",), seed=3, **given):
    generators = [torch.Generator().manual_seed(seed + number) for number in range(len(prompts))]
    given = {"num_inference_steps": 2, "output_type": "latent", **SIZE, **given}
    return pipe(list(prompts), references, generator=generators, **given).images


@pytest.mark.parametrize("caption", [None, "a robot"])
@pytest.mark.parametrize("kind", MAKERS)
def test_later_calls_give_what_the_photos_give(pipes, kind, caption):
    """With other prompts, seeds, scales and branches of guidance than the first."""
    pipe = pipes(kind)
    kept = pipe.encode_references(photos(2), caption, **SIZE)
    plain = {"coupling": "cached", "reference_prompts": caption}
    for how in (
        {},
        {"prompts": ("a robot", "a dog in snow"), "seed": 9, "guidance_scale": 1.0},
        {"guidance_mode": "image_first", "guidance_scale": 3.0, "image_guidance_scale": 2.0},
        {"guidance_mode": "text_only", "guidance_scale": 3.0, "negative_prompt": "snow"},
        {"references_stop": 0.5},
    ):
        want = call(pipe, photos(2), **plain, **how)
        torch.testing.assert_close(call(pipe, kept, **how), want, atol=1e-5, rtol=1e-5)
    assert (call(pipe, pipe.encode_references(photos(1), caption, **SIZE)) - call(pipe, kept)).abs().max() > 0


@pytest.mark.parametrize("kind", ["sd", "klein"])
def test_the_references_run_once_for_all_calls(pipes, kind):
    pipe, seen = pipes(kind), []
    hook = pipe.network.register_forward_pre_hook(lambda *_: seen.append(1))
    kept = pipe.encode_references(photos(2), "a robot", **SIZE)
    assert len(seen) == 1
    for _ in range(2):
        call(pipe, kept, guidance_scale=1.0, image_guidance_scale=1.0)
    assert len(seen) == 1 + 2 * 2
    staged = {"guidance_mode": "image_first", "guidance_scale": 3.0, "image_guidance_scale": 2.0}
    layouts = 1 if kind == "sd" else 2  # sequences with and without references run apart
    for first in (1, 0):  # the pass with empty captions is the first such call's
        del seen[:]
        call(pipe, kept, **staged)
        assert len(seen) == first + 2 * layouts
    hook.remove()


def test_a_reference_has_its_own_size_where_the_family_keeps_it(pipes):
    pipe = pipes("klein")
    kept = pipe.encode_references(photos(2))
    other = {"height": 96, "width": 160}
    want = call(pipe, photos(2), coupling="cached", **other)
    torch.testing.assert_close(call(pipe, kept, **other), want, atol=1e-5, rtol=1e-5)


def test_the_size_that_they_were_encoded_for_is_the_calls(pipes):
    pipe = pipes("sd")
    kept = pipe.encode_references(photos(1), height=96, width=64)
    assert call(pipe, kept, height=None, width=None).shape[2:] == (12, 8)
    with pytest.raises(UsageError, match=r"encoded for pictures of \(96, 64\) pixels"):
        call(pipe, kept, height=64)


def test_layers_that_do_not_couple_are_those_of_the_encoding(pipes):
    pipe, few = pipes("klein"), {"coupled_layers": "1:3"}
    kept = pipe.encode_references(photos(2), **few)
    want = call(pipe, photos(2), coupling="cached", **few)
    torch.testing.assert_close(call(pipe, kept, **few), want, atol=1e-5, rtol=1e-5)
    assert (call(pipe, pipe.encode_references(photos(2))) - want).abs().max() > 1e-4
    with pytest.raises(UsageError, match="other coupled_layers than the call's"):
        call(pipe, kept)


def test_what_is_kept_has_a_size(pipes):
    pipe = pipes("klein")
    kept, alone = (pipe.encode_references(photos(count)) for count in (2, 1))
    tokens, layers, width = (64 * 64 + 64 * 96) // 256, 4, 32
    heavy = kept.nbytes - 2 * tokens * layers * width * 4  # keys and values in float32
    assert 0 < heavy < 60_000
    assert (len(kept), len(alone)) == (2, 1)
    assert alone.nbytes < kept.nbytes


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"coupling": "joint"}, "in 'joint' every step runs them anew"),
        ({"joint_targets": True}, "in 'joint' every step runs them anew"),
        ({"reference_prompts": "a dog"}, "have their captions in them"),
    ],
)
def test_what_they_cannot_serve_is_one_sentence(pipes, given, said):
    pipe = pipes("sd")
    with pytest.raises(UsageError, match=said):
        call(pipe, pipe.encode_references(photos(1)), **given)


def test_nothing_to_encode_is_one_sentence(pipes):
    with pytest.raises(UsageError, match="no references to encode"):
        pipes("sd").encode_references([])


@pytest.mark.parametrize("kind", ["sd", "klein"])
def test_another_model_or_a_changed_one_is_refused(kind):
    pipe = MAKERS[kind]()
    pipe.set_progress_bar_config(disable=True)
    kept = pipe.encode_references(photos(1))
    call(pipe, kept)
    other = MAKERS[kind]()
    lora = LoraConfig(r=2, target_modules=pipe.backbone.lora_targets, init_lora_weights=False)

    def refused(where=pipe):
        with pytest.raises(UsageError, match="encode them anew"):
            call(where, kept)

    refused(other)
    pipe.network.add_adapter(lora, "a")
    refused()
    kept = pipe.encode_references(photos(1))
    call(pipe, kept)
    pipe.set_adapters(["a"], 0.5)
    refused()
    kept = pipe.encode_references(photos(1))
    pipe.network.disable_adapters()
    refused()
    pipe.network.enable_adapters()
    call(pipe, kept)
    pipe.fuse_lora()
    refused()
    kept = pipe.encode_references(photos(1))
    pipe.to(torch.bfloat16)
    refused()
    kept = pipe.encode_references(photos(1))
    with torch.no_grad():
        next(pipe.network.parameters()).mul_(1.1)
    refused()
