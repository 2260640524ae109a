"""The finetuning methods on a tiny model: they learn, store, repeat exactly, and leave no trace."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from jedi_diffusion.backbones.unet import UNetBackbone, make_joint
from jedi_diffusion.errors import JeDiError, ModelError
from jedi_diffusion.methods import finetuned, fitting
from jedi_diffusion.methods.custom_diffusion import CustomDiffusion
from jedi_diffusion.methods.diffusekrona import DiffuseKronA
from jedi_diffusion.methods.dreambooth import DreamBooth
from jedi_diffusion.methods.finetuned import Finetuned
from jedi_diffusion.methods.fitting import FitSettings, loss_of, networks, sets_of_one
from jedi_diffusion.methods.svdiff import SVDiff
from jedi_diffusion.methods.textual_inversion import TextualInversion
from jedi_diffusion.personalizer import Personalizer
from jedi_diffusion.pipeline import JeDiPipeline
from jedi_diffusion.randomness import spawn_generators
from tests.helpers.small_pipelines import make_text_encoder, make_tokenizer, sd_parts, sdxl_parts

TUNINGS: dict[str, Any] = {
    "dreambooth": DreamBooth(),
    "lora": DreamBooth(rank=4),
    "textual inversion": TextualInversion(),
    "custom diffusion": CustomDiffusion(like="robot"),
    "svdiff": SVDiff(),
    "diffusekrona": DiffuseKronA(),
}
RATES = {
    "dreambooth": 3e-3,
    "lora": 2e-2,
    "textual inversion": 0.2,
    "custom diffusion": 2e-2,
    "svdiff": 3e-2,
    "diffusekrona": 2e-2,
}
SAMPLING = {"num_inference_steps": 2, "guidance_scale": 2.0, "height": 32, "width": 32}


@pytest.fixture(scope="module")
def pipe() -> JeDiPipeline:
    tokenizer = make_tokenizer(77)
    parts = sd_parts(in_channels=9) | {
        "tokenizer": tokenizer,
        "text_encoder": make_text_encoder(tokenizer, 24),
    }
    parts["unet"].register_to_config(sample_size=4)
    with torch.no_grad():
        for name, each in parts["unet"].named_parameters():
            if ".attn2.to_v" in name:
                each.mul_(8)  # else text would hardly matter to random weights
    pipeline = JeDiPipeline(**parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def photos(count: int = 2) -> list[Image.Image]:
    values = np.random.default_rng(0).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return [Image.fromarray(each).resize((32, 32), Image.Resampling.BICUBIC) for each in values]


def method(pipe: JeDiPipeline, name: str, steps: int, **changes: Any) -> Finetuned:
    fit = FitSettings(steps, RATES[name], batch=2, weight_decay=0.0)
    return Finetuned(pipe, TUNINGS[name], replace(fit, **changes.pop("fit", {})), SAMPLING, **changes)


def weights(pipe: JeDiPipeline) -> dict[str, torch.Tensor]:
    parts = enumerate(networks(pipe))
    return {f"{k}.{name}": each for k, part in parts for name, each in part.state_dict().items()}


def same(one: list[Image.Image], other: list[Image.Image]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def reference_loss(pipe: JeDiPipeline, tuning: Any) -> float:
    """The loss on the references over fixed draws of noise."""
    from jedi_diffusion.inputs import to_pixels

    with torch.no_grad():
        latents = pipe.encode_pictures(to_pixels(photos(), 32, 32)).repeat(4, 1, 1, 1)
        batch = sets_of_one(pipe, latents, [tuning.captions("dog")[0]] * 8)
        random = torch.Generator().manual_seed(7)
        return float(loss_of(pipe.scheduler)(UNetBackbone(pipe.unet), batch, random))


@pytest.fixture(params=list(TUNINGS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_fitting_lowers_the_loss_and_leaves_no_trace(pipe: JeDiPipeline, name: str, tmp_path: Path) -> None:
    before = {key: each.clone() for key, each in weights(pipe).items()}
    objects = [each for part in networks(pipe) for each in part.parameters()]
    flags = [each.requires_grad for each in objects]
    tokenizer, processors = pipe.tokenizer, pipe.unet.attn_processors
    fitted = method(pipe, name, 12)
    state = fitted.fitted(photos(), ["a dog"] * 2)

    own, parameters = fitted._private("dog")
    untrained = reference_loss(own, fitted.tuning)
    finetuned._fill(parameters, state, "")
    trained = reference_loss(own, fitted.tuning)
    most = 0.997 if name == "textual inversion" else 0.99  # one word of 24 numbers can do little
    assert trained < most * untrained, (untrained, trained)
    assert all(not torch.equal(each, torch.zeros_like(each)) for each in state.values())

    after = weights(pipe)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert {id(each) for part in networks(pipe) for each in part.parameters()} == {id(e) for e in objects}
    assert [each.requires_grad for each in objects] == flags
    assert all(each.grad is None for each in objects)
    assert pipe.tokenizer is tokenizer
    assert pipe.unet.attn_processors == processors
    assert not hasattr(pipe.unet, "peft_config")


def test_no_step_is_the_backbone_itself(pipe: JeDiPipeline, name: str) -> None:
    """The prompt is the method's; words that start as a known one's twin read as that one."""
    prompts = {"textual inversion": "a dog on the beach", "custom diffusion": "a robot dog on the beach"}
    made: Personalizer = method(pipe, name, 0)
    plain: Any = pipe(
        prompt=prompts.get(name, "a sks dog on the beach"),
        generator=[torch.Generator().manual_seed(3)],
        **SAMPLING,
    )
    assert same(made(photos(), ["a dog"] * 2, ["a dog on the beach"], [3]), plain.images)


def test_what_is_stored_makes_the_same_pictures(
    pipe: JeDiPipeline, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = (photos(), ["a dog"] * 2, ["a dog on the beach", "a dog"], [1, 2])
    stored = method(pipe, name, 2, store=tmp_path)
    first = stored(*ask)
    torch.manual_seed(1)  # a fit is no function of torch's global state
    refitted = method(pipe, name, 2)
    assert same(first, refitted(*ask)), "a fit is a function of its seed"
    assert not same(first, method(pipe, name, 0)(*ask))
    monkeypatch.setattr(finetuned, "fit", lambda *_: pytest.fail("fitted again"))
    loaded = method(pipe, name, 2, store=tmp_path)
    assert same(first, loaded(*ask))
    assert loaded.reports == stored.reports
    (report,) = loaded.reports.values()
    (file,) = tmp_path.iterdir()
    assert len(report.losses) == 2
    assert report.seconds > 0
    assert 0 < report.stored_bytes < file.stat().st_size < 1.2 * report.stored_bytes + 200_000


def test_other_photos_captions_or_settings_are_fitted_anew(pipe: JeDiPipeline, tmp_path: Path) -> None:
    for fit in ({}, {"steps": 2}):
        made = method(pipe, "textual inversion", 1, store=tmp_path, fit=fit)
        made.fitted(photos(), ["a dog"] * 2)
        made.fitted(photos(1), ["a dog"])
        made.fitted(photos(1), ["a robot"])
        made.fitted(photos(1), ["a robot"])
    method(pipe, "textual inversion", 1, store=tmp_path, record={"model": "b"}).fitted(photos(1), ["a dog"])
    assert len(list(tmp_path.iterdir())) == 7


def test_stored_files_that_do_not_fit_are_named(pipe: JeDiPipeline, tmp_path: Path) -> None:
    made = method(pipe, "textual inversion", 1, store=tmp_path)
    made.fitted(photos(1), ["a dog"])
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match=file.stem):
        method(pipe, "textual inversion", 1, store=tmp_path).fitted(photos(1), ["a dog"])
    other = method(pipe, "svdiff", 1, store=tmp_path / "other")
    other.fitted(photos(1), ["a dog"])
    file.write_bytes(next((tmp_path / "other").iterdir()).read_bytes())
    again = method(pipe, "textual inversion", 1, store=tmp_path)
    with pytest.raises(ModelError, match="does not fit this method"):
        again(photos(1), ["a dog"], ["a dog"], [0])


def test_prior_pictures_are_the_untouched_models_and_matter(pipe: JeDiPipeline) -> None:
    with_prior = {"prior_pictures": 2, "prior_weight": 1.0}
    plain = method(pipe, "lora", 2).fitted(photos(), ["a dog"] * 2)
    held = method(pipe, "lora", 2, fit=with_prior)
    state = held.fitted(photos(), ["a dog"] * 2)
    assert any(not torch.equal(plain[key], state[key]) for key in plain)
    assert held._prior is not None
    caption, prior = held._prior
    assert (caption, prior.captions) == ("a dog", ("a dog",))
    random = spawn_generators(0, 2)
    expected = [
        pipe(prompt="a dog", generator=each, output_type="latent", **SAMPLING).images for each in random
    ]
    assert torch.equal(prior.latents, torch.cat(expected))
    assert held.reports[next(iter(held.reports))].prior_seconds > 0


def test_low_precision_and_diverging_fits_are_refused(pipe: JeDiPipeline) -> None:
    with pytest.raises(JeDiError, match="lower the learning rate"):
        method(pipe, "dreambooth", 9, fit={"learning_rate": 1e30}).fitted(photos(1), ["a dog"])
    pipe.unet.to(torch.bfloat16)
    try:
        with pytest.raises(ModelError, match="float32"):
            method(pipe, "lora", 1)
    finally:
        pipe.unet.to(torch.float32)


@pytest.mark.parametrize("name", ["lora", "textual inversion"])
def test_sdxl_is_a_backbone(name: str) -> None:
    parts = sdxl_parts()
    pipe = JeDiPipeline(**parts | {"unet": make_joint(parts["unet"])})
    pipe.set_progress_bar_config(disable=True)
    made = method(pipe, name, 2)
    one = made(photos(1), ["a dog"], ["a dog on the beach"], [1])
    assert not same(one, method(pipe, name, 0)(photos(1), ["a dog"], ["a dog on the beach"], [1]))
    rows = {key for key in made.fitted(photos(1), ["a dog"]) if key.startswith("text_encoder")}
    assert len(rows) == (2 if name == "textual inversion" else 0)


@pytest.mark.parametrize("name", ["lora", "textual inversion", "custom diffusion"])
def test_the_bundled_model_is_a_backbone(toybox: JeDiPipeline, name: str) -> None:
    """It reads its own words only: names of subjects are new words to it."""
    made = Finetuned(toybox, TUNINGS[name], FitSettings(1, 0.05), SAMPLING | {"num_inference_steps": 1})
    one = made(photos(1), ["a robot"], ["a robot on the beach"], [1])
    plain = replace(made, fit=FitSettings(0, 0.05), _last=None)
    assert not same(one, plain(photos(1), ["a robot"], ["a robot on the beach"], [1]))
    assert same(one, replace(made, _last=None)(photos(1), ["a robot"], ["a robot on the beach"], [1]))


@pytest.fixture(scope="module")
def toybox() -> JeDiPipeline:
    from jedi_toybox import load_pipeline

    pipeline = load_pipeline()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_gradients_that_are_not_finite_end_a_fit(pipe: JeDiPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the loss is finite."""
    monkeypatch.setattr(fitting, "prior_preservation", lambda errors, *_: (0 * errors.mean()).sqrt())
    with pytest.raises(JeDiError, match="gradient of step 1 is not finite: lower the learning rate"):
        method(pipe, "textual inversion", 1).fitted(photos(), ["a dog"] * 2)


def test_the_pipeline_can_be_used_while_methods_fit_and_sample(pipe: JeDiPipeline) -> None:
    ask = (photos(), ["a dog"] * 2, ["a dog on the beach"], [3])

    def plain() -> torch.Tensor:
        random = torch.Generator().manual_seed(1)
        made: Any = pipe(prompt="a dog", generator=random, output_type="latent", **SAMPLING)
        return made.images

    expected = plain()
    with ThreadPoolExecutor(1) as thread:
        fits = [thread.submit(method(pipe, name, 2), *ask) for name in TUNINGS]
        while not all(each.done() for each in fits):
            assert torch.equal(plain(), expected)
    assert all(len(each.result()) == 1 for each in fits)
