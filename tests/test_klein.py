"""FLUX.2 [klein] folders as they are published, through `JeDiPipeline`, against diffusers' own pipelines."""

import json
import logging
import shutil

import numpy as np
import pytest
import torch
from diffusers import Flux2KleinKVPipeline, Flux2KleinPipeline, Flux2Transformer2DModel
from peft import LoraConfig, get_peft_model_state_dict
from PIL import Image
from safetensors.torch import save_file

from jedi_diffusion import JeDiPipeline, cli, models
from jedi_diffusion.errors import ModelError, UsageError
from jedi_diffusion.randomness import seeded_generator
from tests.helpers.small_klein import save_dev, save_klein

SIZE = {"height": 64, "width": 96}
PROMPT = "a dog on the beach"
LAST = "proj_out.weight"


def photo(width=80, height=112, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


PHOTOS = [photo(), photo(150, 75, seed=1), photo(64, 64, seed=2)]


def seeded(seed=3):
    return torch.Generator().manual_seed(seed)


def in_our_form(pipe, latents):
    """What diffusers returns as "latent": unpatched and with the autoencoder's statistics."""
    mean = pipe.vae.bn.running_mean.view(1, -1, 1, 1)
    deviation = torch.sqrt(pipe.vae.bn.running_var.view(1, -1, 1, 1) + pipe.vae.config.batch_norm_eps)
    return (Flux2KleinPipeline._patchify_latents(latents) - mean) / deviation


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folder and diffusers' pipeline, for each kind."""
    root = tmp_path_factory.mktemp("klein")
    kinds = {
        "distilled": (Flux2KleinPipeline, True),
        "base": (Flux2KleinPipeline, False),
        "kv": (Flux2KleinKVPipeline, True),
    }
    return {name: (root / name, save_klein(root / name, *how)) for name, how in kinds.items()}


@pytest.fixture(scope="module")
def dev(tmp_path_factory):
    """Folder and diffusers' pipeline of FLUX.2 [dev]."""
    folder = tmp_path_factory.mktemp("dev") / "dev"
    return folder, save_dev(folder)


def opened(folders, kind):
    pipe = JeDiPipeline.from_pretrained(folders[kind][0], dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize("references", [0, 1, 3])
@pytest.mark.parametrize("kind", ["distilled", "base", "kv"])
def test_latents_equal_those_of_diffusers(folders, kind, references):
    ours, theirs = opened(folders, kind), folders[kind][1]
    images, steps = PHOTOS[:references], 3
    options = {} if kind == "kv" else {"guidance_scale": 4.0}
    want = theirs(
        images or None, PROMPT, num_inference_steps=steps, generator=seeded(), output_type="latent",
        **SIZE, **options,
    ).images  # fmt: skip
    got = ours(
        PROMPT, images, num_inference_steps=steps, generator=seeded(), output_type="latent", **SIZE
    ).images
    assert got.shape == (1, 16, 4, 6)
    torch.testing.assert_close(got, in_our_form(theirs, want), atol=1e-4, rtol=0)


@pytest.mark.parametrize("references", [0, 1, 3])
def test_latents_of_dev_equal_those_of_diffusers(dev, references):
    """A folder that names a processor; guidance is an input, the model's own 4 or the call's."""
    folder, theirs = dev
    ours = JeDiPipeline.from_pretrained(folder)
    ours.set_progress_bar_config(disable=True)
    assert (ours.own_sampling.steps, ours.own_sampling.guidance) == (50, 1.0)
    how = {"num_inference_steps": 3, "output_type": "latent", **SIZE}
    for given, wanted in (({}, {}), ({"embedded_guidance": 2.5}, {"guidance_scale": 2.5})):
        images = PHOTOS[:references]
        want = theirs(images or None, PROMPT, generator=seeded(), **how, **wanted).images
        got = ours(PROMPT, images, generator=seeded(), **how, **given).images
        published = want.transpose(1, 2).unflatten(2, (4, 6))
        torch.testing.assert_close(got, published, atol=1e-4, rtol=0)


def tokens_seen(pipe, **options):
    """Lengths of the sequences (captions, images) of every pass of a call of two steps."""
    seen = []

    def look(_module, _args, given):
        text, images = given["encoder_hidden_states"], given["hidden_states"]
        seen.append((len(images), text.shape[1], images.shape[1]))

    hook = pipe.transformer.register_forward_pre_hook(look, with_kwargs=True)
    pipe(PROMPT, num_inference_steps=2, generator=seeded(), output_type="latent", **SIZE, **options)
    hook.remove()
    return seen


def test_guidance_on_references_costs_a_pass_without_them_and_none_at_scale_1(folders):
    pipe = opened(folders, "distilled")
    photo_tokens = (112 // 16) * (80 // 16)
    with_photo = (1, 512, 24 + photo_tokens)
    assert tokens_seen(pipe, references=PHOTOS[:1]) == [with_photo] * 2
    guided = tokens_seen(pipe, references=PHOTOS[:1], image_guidance_scale=1.5)
    assert sorted(guided) == [(1, 512, 24)] * 2 + [with_photo] * 2
    kept = tokens_seen(opened(folders, "kv"), references=PHOTOS[:1])
    assert kept == [(1, 0, photo_tokens)] + [(1, 512, 24)] * 2


def test_guidance_on_references_is_equation_3_between_passes_with_and_without_them(folders):
    pipe = opened(folders, "distilled")

    def one_step(references, **options):
        how = {"num_inference_steps": 1, "output_type": "latent", **SIZE, **options}
        return pipe(PROMPT, references, generator=seeded(), **how).images

    alone, whole = one_step([]), one_step(PHOTOS[:1])
    guided = one_step(PHOTOS[:1], image_guidance_scale=1.5)
    # One Euler step is linear in the velocity.
    torch.testing.assert_close(guided, alone + 1.5 * (whole - alone), atol=1e-4, rtol=0)


def test_several_pictures_of_one_set_read_their_own_captions_and_each_other(folders):
    pipe = opened(folders, "distilled")

    def call(*prompts, **options):
        generators = [seeded(seed) for seed in range(len(prompts))]
        return pipe(
            list(prompts), PHOTOS[:2], num_inference_steps=2, generator=generators, output_type="latent",
            **SIZE, **options,
        ).images  # fmt: skip

    apart, joint = call("a dog", "a cat"), call("a dog", "a cat", joint_targets=True)
    torch.testing.assert_close(apart[:1], call("a dog"), atol=1e-5, rtol=0)
    assert (apart != joint).flatten(1).any(dim=1).all()
    assert not torch.equal(call("a dog", "a bird", joint_targets=True)[0], joint[0])


def test_larger_references_than_targets_change_no_size_and_previews_have_the_targets(folders):
    pipe, sizes = opened(folders, "distilled"), []

    def callback(_pipe, _step, _time, tensors):
        sizes.extend(tuple(each.shape) for each in tensors.values())
        return {"latents": tensors["latents"] * 0}

    images = pipe(
        PROMPT,
        photo(640, 320),
        num_inference_steps=2,
        callback_on_step_end=callback,
        output_type="pil",
        **SIZE,
    ).images
    assert images[0].size == (96, 64)
    assert set(sizes) == {(1, 16, 4, 6)}


def test_references_are_prepared_as_diffusers_does(folders):
    """Of more than a megapixel, of sides that are no multiple of 16, transparent."""
    pipe, theirs = opened(folders, "distilled"), folders["distilled"][1]
    for given in (photo(1600, 1000), photo(150, 75), photo(64, 80).convert("RGBA")):
        (ours,) = pipe.backbone.fit_references([given], (64, 64))
        image = theirs.image_processor._resize_if_exceeds_area(given.convert("RGB"))
        width, height = (side // 16 * 16 for side in image.size)
        want = theirs.image_processor.preprocess(image, height=height, width=width, resize_mode="crop")
        torch.testing.assert_close(ours, want[0])


def test_what_a_reference_cannot_be(folders):
    pipe = opened(folders, "distilled")
    with pytest.raises(UsageError, match=r"Reference 2 has 20000 x 300 pixels.* at most 8 times"):
        pipe(PROMPT, [PHOTOS[0], Image.new("RGB", (20000, 300))], **SIZE)
    with pytest.raises(UsageError, match="at least 64"):
        pipe(PROMPT, Image.new("RGB", (200, 40)), **SIZE)


def test_what_the_model_was_not_trained_for_is_said_once(folders, caplog):
    pipe = opened(folders, "distilled")
    how = {"num_inference_steps": 1, "output_type": "latent", **SIZE}
    with caplog.at_level(logging.WARNING, "jedi_diffusion"):
        for _ in range(2):
            pipe(PROMPT, [PHOTOS[2]] * 40, coupling="cached", **how)
    assert [record.getMessage()[:60] for record in caplog.records] == [
        "This model was trained with at most 4 references; 40 are giv",
        "This model was not trained with coupling 'cached': reference",
    ]


def test_generate_takes_more_references_than_the_model_was_trained_with(folders, tmp_path, capsys):
    photo(64, 64).save(tmp_path / "dog.png")
    given = ["--model", str(folders["distilled"][0]), *["--reference", str(tmp_path / "dog.png")] * 40]
    given += ["--prompt", PROMPT, "--size", "64", "--steps", "1", "--out", str(tmp_path / "out")]
    said = "trained with at most 4 references; 40 are given."
    assert cli.main(["generate", "--dry-run", *given]) == 0
    assert f"Untrained:  This model was {said}" in capsys.readouterr().out
    assert cli.main(["generate", *given]) == 0
    assert said in capsys.readouterr().err
    assert len(list((tmp_path / "out").iterdir())) == 3  # picture, sheet, settings


def test_a_saved_folder_loads_again_and_bfloat16_runs(folders, tmp_path):
    pipe = opened(folders, "kv")
    pipe.save_pretrained(tmp_path)
    again = JeDiPipeline.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert (again.own_coupling, again.own_sampling) == ("cached", pipe.own_sampling)
    images = again(PROMPT, PHOTOS[:2], num_inference_steps=2, output_type="np", **SIZE).images
    assert np.isfinite(images).all()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: shutil.rmtree(folder / "vae"), "no folder vae"),
        (
            lambda folder: rewrite(folder, {"norm": torch.zeros(1)}),
            "1 missing .proj_out.weight.*unexpected",
        ),
        (lambda folder: rewrite(folder, {LAST: torch.zeros(3, 3)}), r"proj_out.weight is \[3, 3\], not"),
    ],
    ids=["component", "names", "shape"],
)
def test_folders_that_do_not_fit_are_refused_in_a_sentence(folders, tmp_path, spoil, said):
    folder = tmp_path / "model"
    shutil.copytree(folders["distilled"][0], folder)
    spoil(folder)
    with pytest.raises(ModelError, match=said):
        JeDiPipeline.from_pretrained(folder)


def rewrite(folder, instead):
    """Put a transformer's weights into one file, with these in the place of its last layer's."""
    transformer = Flux2Transformer2DModel.from_pretrained(folder / "transformer")
    state = transformer.state_dict()
    del state[LAST]
    state |= instead
    shutil.rmtree(folder / "transformer")
    transformer.save_config(folder / "transformer")
    save_file(state, folder / "transformer" / "diffusion_pytorch_model.safetensors")


def test_a_flow_is_sampled_by_its_own_scheduler_alone(folders):
    with pytest.raises(UsageError, match="a flow, which --scheduler ddim cannot sample"):
        models.set_scheduler(opened(folders, "distilled"), "ddim")


def test_generate_reads_such_a_folder(folders, tmp_path, capsys):
    photo().save(tmp_path / "dog.png")
    arguments = ["--model", str(folders["kv"][0]), "--reference", str(tmp_path / "dog.png")]
    arguments += [
        "--prompt",
        PROMPT,
        "--size",
        "64",
        "--out",
        str(tmp_path / "out"),
        "--seed",
        "3",
        "--no-watermark",
    ]
    assert cli.main(["generate", *arguments]) == 0, capsys.readouterr().err
    (picture,) = (tmp_path / "out").glob("*_3.png")
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())["options"]
    assert (settings["steps"], settings["guidance"], settings["coupling"]) == (4, 1.0, "cached")
    theirs = folders["kv"][1]
    want = theirs(photo(), PROMPT, height=64, width=64, generator=seeded_generator(3)).images[0]
    difference = np.asarray(want, int) - np.asarray(Image.open(picture), int)
    assert abs(difference).max() <= 1


def test_a_reference_that_the_model_cannot_read_leaves_nothing_behind(folders, tmp_path, capsys):
    Image.new("RGB", (20000, 300)).save(tmp_path / "wide.png")
    arguments = ["--model", str(folders["kv"][0]), "--reference", str(tmp_path / "wide.png")]
    arguments += ["--prompt", PROMPT, "--size", "64", "--out", str(tmp_path / "out")]
    assert cli.main(["generate", *arguments]) == 2
    assert "Reference 1 has 20000 x 300 pixels" in capsys.readouterr().err.splitlines()[-1]
    assert not list((tmp_path / "out").iterdir())


def test_adapters_are_read_in_the_formats_of_the_family_and_merged(folders, tmp_path):
    """As diffusers' own pipeline writes them."""
    ours, theirs = opened(folders, "distilled"), folders["distilled"][1]
    how = {"num_inference_steps": 1, "output_type": "latent", **SIZE}
    plain = ours(PROMPT, PHOTOS[:1], generator=seeded(), **how).images
    config = LoraConfig(r=2, lora_alpha=2, target_modules=ours.backbone.lora_targets, init_lora_weights=False)
    theirs.transformer.add_adapter(config)
    state = get_peft_model_state_dict(theirs.transformer)
    Flux2KleinPipeline.save_lora_weights(tmp_path, transformer_lora_layers=state)
    want = in_our_form(theirs, theirs(PHOTOS[:1], PROMPT, generator=seeded(), **how).images)
    theirs.transformer.delete_adapters("default")
    ours.load_lora_weights(tmp_path)
    got = ours(PROMPT, PHOTOS[:1], generator=seeded(), **how).images
    torch.testing.assert_close(got, want, atol=1e-4, rtol=0)
    assert (got - plain).abs().max() > 1e-3
    ours.fuse_lora()
    ours.unload_lora_weights()
    merged = ours(PROMPT, PHOTOS[:1], generator=seeded(), **how).images
    torch.testing.assert_close(merged, want, atol=1e-4, rtol=0)
