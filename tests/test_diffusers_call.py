"""What users of diffusers give a call, in every family: the latents of its own pipeline, or one sentence."""

import pytest
import torch
from diffusers import (
    EulerDiscreteScheduler,
    Flux2KleinPipeline,
    FluxPipeline,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)

from jedi_diffusion import JeDiPipeline
from jedi_diffusion.errors import UsageError
from jedi_diffusion.models import open_base
from tests.helpers.small_klein import klein_parts
from tests.helpers.small_pipelines import NOISE, sd_parts, sdxl_parts
from tests.helpers.small_published import flux_parts, sd3_parts

PROMPT, NEGATIVE = "a dog on the beach", "a robot in snow"
SIZE = {"height": 64, "width": 64}
FAMILIES = ("sd", "sdxl", "flux", "sd3", "klein")
UNETS = ("sd", "sdxl")


def made(kind):
    """diffusers' pipeline of a family, with random weights."""
    noise = {"scheduler": EulerDiscreteScheduler(**NOISE, steps_offset=1)}
    if kind == "sd":
        stock = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
        return StableDiffusionPipeline(**sd_parts() | noise, **stock)
    if kind == "sdxl":
        return StableDiffusionXLPipeline(**sdxl_parts() | noise, add_watermarker=False)
    if kind == "flux":
        return FluxPipeline(**flux_parts(guidance_embeds=True))
    if kind == "sd3":
        return StableDiffusion3Pipeline(**sd3_parts())
    return Flux2KleinPipeline(**klein_parts(), is_distilled=False)


@pytest.fixture(scope="module")
def pipes(tmp_path_factory):
    """By family: diffusers' pipeline and ours, made from its folder when first asked for."""
    there = {}

    def of(kind):
        if kind not in there:
            theirs, folder = made(kind), tmp_path_factory.mktemp("models") / kind
            theirs.save_pretrained(folder)
            ours = open_base(str(folder))
            for pipe in (theirs, ours):
                pipe.set_progress_bar_config(disable=True)
            there[kind] = (theirs, ours)
        return there[kind]

    return of


def call(pipe, prompt=PROMPT, **given):
    """Latents of two steps; ours have no guidance of their own for FLUX.1, which is distilled."""
    if not isinstance(pipe, JeDiPipeline):
        given = {"true_cfg_scale" if name == "guided" else name: value for name, value in given.items()}
    elif "guided" in given:
        given["guidance_scale"] = given.pop("guided")
    steps = {} if "sigmas" in given or "timesteps" in given else {"num_inference_steps": 2}
    generator = torch.Generator().manual_seed(3)
    return pipe(prompt=prompt, generator=generator, output_type="latent", **{**steps, **SIZE, **given}).images


def in_our_form(kind, theirs, latents):
    if kind == "flux":
        return FluxPipeline._unpack_latents(latents, 64, 64, 8)
    if kind != "klein":
        return latents
    bn = theirs.vae.bn
    mean, variance = (each.view(1, -1, 1, 1) for each in (bn.running_mean, bn.running_var))
    patches = Flux2KleinPipeline._patchify_latents(latents)
    return (patches - mean) / torch.sqrt(variance + theirs.vae.config.batch_norm_eps)


def agree(pipes, kind, ours, theirs=None, differs_from=None):
    """Both pipelines give the same latents, and these are not what a call without the argument gives."""
    published, own = pipes(kind)
    got = call(own, **ours)
    want = in_our_form(kind, published, call(published, **(ours if theirs is None else theirs)))
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)
    plain = call(own, **(differs_from or {}))
    assert (got - plain).abs().max() > 1e-3


def embedded(pipes, kind, text):
    """Of a text what the family's own pipeline makes of it: embedding and pooled text."""
    published = pipes(kind)[0]
    if kind == "klein":
        return published.encode_prompt(text)[0], None
    if kind == "flux":
        return published.encode_prompt(text, text)[:2]
    if kind == "sd3":
        found = published.encode_prompt(text, text, text, do_classifier_free_guidance=False)
        return found[0], found[2]
    if kind == "sdxl":
        found = published.encode_prompt(text, do_classifier_free_guidance=False)
        return found[0], found[2]
    return published.encode_prompt(text, "cpu", 1, False)[0], None


def named(prefix, pair):
    names = (f"{prefix}prompt_embeds", f"{prefix}pooled_prompt_embeds")
    return {name: value for name, value in zip(names, pair, strict=True) if value is not None}


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_negative_prompt(pipes, kind):
    scale = {"guided" if kind == "flux" else "guidance_scale": 3.0}
    theirs = {**scale, "negative_prompt": NEGATIVE}
    if kind == "klein":  # takes its embedding alone
        theirs = {**scale, "negative_prompt_embeds": embedded(pipes, kind, NEGATIVE)[0]}
    agree(pipes, kind, {**scale, "negative_prompt": NEGATIVE}, theirs, differs_from=scale)


@pytest.mark.parametrize("kind", ["sdxl", "flux", "sd3"])
def test_a_prompt_for_each_text_encoder(pipes, kind):
    """Also of the negative prompt; a list has one each."""
    scale = {"guided" if kind == "flux" else "guidance_scale": 3.0}
    given = {"negative_prompt": NEGATIVE, "negative_prompt_2": "a cat", "prompt_2": "a robot on grass"}
    if kind == "sd3":
        given |= {"prompt_3": "snow", "negative_prompt_3": "sand"}
    agree(pipes, kind, scale | given, differs_from={**scale, "negative_prompt": NEGATIVE})
    ours = pipes(kind)[1]
    want = call(ours, prompt=PROMPT, **scale, **given)
    apart = {name: [NEGATIVE, text] for name, text in given.items()}
    how = {"guidance_scale": 3.0, "num_inference_steps": 2, "output_type": "latent", **SIZE}
    seeds = [torch.Generator().manual_seed(seed) for seed in (8, 3)]
    got = ours([NEGATIVE, PROMPT], generator=seeds, **how, **apart).images
    torch.testing.assert_close(got[1:], want, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", FAMILIES)
def test_embeddings_in_the_place_of_prompts(pipes, kind):
    scale = {"guided" if kind == "flux" else "guidance_scale": 3.0}
    pair = embedded(pipes, kind, PROMPT), embedded(pipes, kind, NEGATIVE)
    given = {"prompt": None, **named("", pair[0]), **named("negative_", pair[1])}
    agree(pipes, kind, {**scale, **given}, differs_from=scale)
    ours = pipes(kind)[1]
    words = call(ours, negative_prompt=NEGATIVE, **scale)
    torch.testing.assert_close(call(ours, **scale, **given), words, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", FAMILIES)
def test_every_step_spelled_out(pipes, kind):
    given = {"timesteps": [900, 500, 200]} if kind in UNETS else {"sigmas": [1.0, 0.7, 0.3]}
    scale = {} if kind == "flux" else {"guidance_scale": 3.0}
    theirs = {**given, **scale}
    if kind not in UNETS:
        theirs["num_inference_steps"] = 3  # by which klein's pipeline shifts its sigmas
    agree(pipes, kind, {**given, **scale}, theirs, differs_from={**scale, "num_inference_steps": 3})


@pytest.mark.parametrize("kind", UNETS)
def test_sigmas_of_a_diffusion(pipes, kind):
    agree(pipes, kind, {"sigmas": [12.0, 3.0, 0.5], "guidance_scale": 3.0}, differs_from={})


@pytest.mark.parametrize("kind", ["flux", "sd3", "klein"])
def test_captions_cut_at_fewer_tokens(pipes, kind):
    given = {"max_sequence_length": 7 if kind == "klein" else 2}
    scale = {} if kind == "flux" else {"guidance_scale": 3.0}
    agree(pipes, kind, {**given, **scale}, differs_from=scale)


def test_guidance_as_an_input(pipes):
    agree(pipes, "flux", {"embedded_guidance": 9.0}, {"guidance_scale": 9.0})


@pytest.mark.parametrize("kind", ["sd", "klein"])
def test_callbacks_get_the_tensors_that_they_name(pipes, kind):
    seen = []

    def callback(_pipe, _step, _time, tensors):
        seen.append(sorted(tensors))
        return {"latents": tensors["latents"] * 0.5}

    def names(*wanted):
        return {"callback_on_step_end": callback, "callback_on_step_end_tensor_inputs": list(wanted)}

    agree(pipes, kind, {**names("latents"), "guidance_scale": 3.0}, differs_from={"guidance_scale": 3.0})
    call(pipes(kind)[1], **names("latents", "clean_latents"))
    assert seen == [["latents"]] * 4 + [["clean_latents", "latents"]] * 2


@pytest.mark.parametrize("kind", FAMILIES)
def test_with_references_negative_prompts_are_the_targets_alone(pipes, kind):
    """Two pictures of one call, each with its own, are what each is alone; also with cached references."""
    ours, photos = pipes(kind)[1], [torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(1))]
    texts = [(PROMPT, NEGATIVE), ("a robot", "a dog in snow")]

    def draw(prompts, negatives, seeds, coupling):
        return ours(
            prompts,
            photos,
            negative_prompt=negatives,
            guidance_scale=3.0,
            coupling=coupling,
            num_inference_steps=2,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            output_type="latent",
            **SIZE,
        ).images

    for coupling in ("joint", "cached"):
        alone = [draw([text], [other], [seed], coupling) for seed, (text, other) in enumerate(texts)]
        both = draw(*map(list, zip(*texts, strict=True)), [0, 1], coupling)
        torch.testing.assert_close(both, torch.cat(alone), atol=1e-4, rtol=1e-4)
        plain = draw([PROMPT], None, [0], coupling)
        assert (plain - alone[0]).abs().max() > 1e-3
        torch.testing.assert_close(draw([PROMPT], "", [0], coupling), plain, atol=1e-5, rtol=0)


def test_without_its_text_encoder_a_model_takes_embeddings(pipes, tmp_path):
    theirs, ours = pipes("klein")
    theirs.save_pretrained(tmp_path)
    light = JeDiPipeline.from_pretrained(tmp_path, text_encoder=None, tokenizer=None)
    light.set_progress_bar_config(disable=True)
    photo = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(1))
    given = {
        "prompt": None,
        **named("", embedded(pipes, "klein", PROMPT)),
        **named("negative_", embedded(pipes, "klein", "")),
    }
    torch.testing.assert_close(call(light, references=photo, **given), call(ours, references=photo))
    with pytest.raises(UsageError, match="text encoder is not loaded, and the caption 'a dog on the beach'"):
        call(light)
    del given["negative_prompt_embeds"]
    with pytest.raises(UsageError, match="text encoder is not loaded, and the caption ''"):
        call(light, **given)
    assert call(light, **given, guidance_scale=1.0).isfinite().all()


WIDE = torch.zeros(1, 5, 999)
REFUSED = [
    ("sd", {"prompt": None}, "There is no prompt"),
    ("sd", {"prompt_embeds": WIDE}, "Both prompt and prompt_embeds are given"),
    ("sd", {"prompt": None, "prompt_embeds": WIDE}, r"shape \(1, 5, 999\), but must have \(prompts, tokens"),
    ("sd", {"prompt": None, "prompt_embeds": WIDE[..., :24] / 0}, "prompt_embeds holds NaN"),
    ("sd", {"prompt": None, "prompt_embeds": WIDE[..., :24]}, "in 5 tokens, but other captions .* in 16"),
    ("sd", {"pooled_prompt_embeds": WIDE[0]}, "needs prompt_embeds beside it"),
    ("sdxl", {"prompt": None, "prompt_embeds": WIDE[..., :24]}, "give pooled_prompt_embeds beside"),
    ("sd", {"prompt": None, "prompt_embeds": WIDE[..., :24], "pooled_prompt_embeds": WIDE[0]}, "no pooled"),
    ("sd", {"prompt_2": "a dog"}, "prompt_2 is for another text encoder, but this model has one text"),
    ("klein", {"negative_prompt_2": "a dog", "negative_prompt": "a"}, "negative_prompt_2 is for another"),
    ("flux", {"prompt_3": "a dog"}, "prompt_3 is for another text encoder, but this model has 2 text enc"),
    ("flux", {"prompt_2": ["a", "b"]}, "There are 2 of prompt_2 for 1 of prompt"),
    ("flux", {"negative_prompt_2": "a dog"}, "negative_prompt_2 goes with negative_prompt"),
    ("flux", {"prompt": None, "prompt_embeds": WIDE, "prompt_2": "a"}, "prompt_2 goes with prompt, which is"),
    ("flux", {"prompt": [("a", "b")]}, "A prompt must be a string, not tuple"),
    ("sd", {"negative_prompt": "a dog", "guidance_scale": 1.0}, "there is no guidance: take a"),
    ("flux", {"negative_prompt": "a dog"}, "there is no guidance: take a"),
    ("sd", {"negative_prompt": ["a", "b"]}, "2 negative prompts for 1 prompts"),
    ("sd", {"max_sequence_length": 9}, "fixed length: leave max_sequence_length out"),
    ("flux", {"max_sequence_length": 513}, "max_sequence_length must be a whole number from 1 to 512"),
    ("sd", {"embedded_guidance": 3.0}, "takes no guidance as an input"),
    ("flux", {"embedded_guidance": -1.0}, "embedded_guidance is -1.0, but must lie"),
    ("sd", {"sigmas": [1.0], "timesteps": [1]}, "Both sigmas and timesteps"),
    ("flux", {"timesteps": [900, 1]}, "as sigmas; give these"),
    ("flux", {"sigmas": []}, "sigmas must be numbers from 0 on"),
    ("flux", {"sigmas": [0.5, 0.7]}, "each smaller than the one before"),
    ("flux", {"sigmas": [1.0, 0.5], "num_inference_steps": 3}, "is 3, but 2 sigmas are given"),
    ("sd", {"callback_on_step_end_tensor_inputs": ["prompt_embeds"]}, "callbacks get latents and clean_lat"),
]


@pytest.mark.parametrize(("kind", "given", "said"), REFUSED, ids=range(len(REFUSED)))
def test_what_does_not_fit_is_one_sentence(pipes, kind, given, said):
    with pytest.raises(UsageError, match=said):
        call(pipes(kind)[1], **given)


def test_a_scheduler_without_custom_steps_says_so(tmp_path):
    parts = sd_parts()
    ours = JeDiPipeline(**sd_parts(in_channels=9) | {"scheduler": parts["scheduler"]})
    with pytest.raises(UsageError, match="DDIMScheduler takes no timesteps"):
        call(ours, timesteps=[900, 1])
