"""What each finetuning method changes in the weights, against formulas written out here."""

import re

import pytest
import torch
from torch import nn

from jedi_diffusion.backbones.unet import UNetBackbone
from jedi_diffusion.errors import UsageError
from jedi_diffusion.methods.custom_diffusion import CustomDiffusion
from jedi_diffusion.methods.diffusekrona import DiffuseKronA
from jedi_diffusion.methods.dreambooth import DreamBooth
from jedi_diffusion.methods.fitting import Examples, loss_of, prior_preservation, sets_of_one
from jedi_diffusion.methods.parameters import copies, private_copy
from jedi_diffusion.methods.svdiff import SpectralShift, SVDiff, decompose
from jedi_diffusion.pipeline import JeDiPipeline
from tests.helpers.small_pipelines import make_scheduler, sd_parts


@pytest.fixture(scope="module")
def pipe() -> JeDiPipeline:
    return JeDiPipeline(**sd_parts(in_channels=9))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_prior_preservation_is_the_sum_of_two_means() -> None:
    errors = torch.rand(5, 3, 4, 4, generator=seeded())
    own = [float(value) for value in errors[:2].flatten()]
    prior = [float(value) for value in errors[2:].flatten()]
    expected = sum(own) / len(own) + 0.7 * sum(prior) / len(prior)
    assert float(prior_preservation(errors, 2, 0.7)) == pytest.approx(expected, rel=1e-5)
    assert float(prior_preservation(errors, 5, 0.7)) == pytest.approx(float(errors.mean()), rel=1e-6)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_the_loss_is_the_schedulers(pipe: JeDiPipeline, kind: str) -> None:
    """Against the plain single-image loss, with noise and level drawn by hand in the same order."""
    scheduler = make_scheduler()
    scheduler.register_to_config(prediction_type=kind)
    latents = torch.randn(2, 4, 8, 8, generator=seeded(1))
    with torch.no_grad():
        batch = sets_of_one(pipe, latents, ["a dog", "a robot"])
        found = float(loss_of(scheduler)(UNetBackbone(pipe.unet), batch, seeded(2)))
        random = seeded(2)
        places = torch.randperm(2, generator=random) + torch.rand(2, generator=random)
        steps = (places * 1000 / 2).long()
        noise = torch.randn(latents.shape, generator=random)
        noisy = scheduler.add_noise(latents, noise, steps)
        given = torch.cat([noisy, torch.ones(2, 1, 8, 8), torch.zeros_like(latents)], 1)
        text = pipe.encode_captions(["a dog", "a robot"])["text"]
        answer = pipe.unet(given, steps, text).sample
        abar = scheduler.alphas_cumprod[steps].view(-1, 1, 1, 1)
        target = {
            "epsilon": noise,
            "v_prediction": scheduler.get_velocity(latents, noise, steps),
            "sample": latents,
        }[kind]
        weight = (abar / (1 - abar) + 1).clamp(max=21) if kind == "sample" else torch.tensor(1.0)
        expected = float((weight * (answer - target) ** 2).mean())
    assert found == pytest.approx(expected, rel=1e-4)


def test_examples_are_drawn_uniformly() -> None:
    examples = Examples(torch.arange(3.0).view(3, 1, 1, 1), ("a", "b"))
    latents, captions = examples.draw(6000, seeded())
    assert torch.bincount(latents.flatten().long()) / 6000 == pytest.approx([1 / 3] * 3, abs=0.03)
    assert captions.count("a") / 6000 == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 3, 3, 3)])
def test_shifted_singular_values(shape: tuple[int, ...]) -> None:
    weight = torch.randn(shape, generator=seeded())
    spectrum = decompose(weight)
    module = SpectralShift(spectrum)
    assert torch.equal(module(weight), weight)
    shift = torch.randn(module.shift.shape, generator=seeded(1))
    shift[-1] = -100  # below zero: the value is cut off, and the rank falls by one
    with torch.no_grad():
        module.shift.copy_(shift)
    u, s, vt = spectrum
    expected = u @ torch.diag((s + shift).clamp(min=0)) @ vt
    assert torch.allclose(module(weight), expected.view(shape), atol=1e-5)
    values = torch.linalg.svdvals(module(weight).flatten(1))
    assert torch.allclose(values.sort().values, (s + shift).clamp(min=0).sort().values, atol=1e-5)
    module(weight).square().sum().backward()
    assert module.shift.grad is not None
    assert module.shift.grad[-1] == 0


def test_svdiff_learns_one_number_a_singular_value(pipe: JeDiPipeline) -> None:
    layers = {n: m for n, m in pipe.unet.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    tuning = SVDiff()
    shifts = tuning.add(private_copy(pipe), "dog", seeded())
    counts = {name: each.numel() for name, each in shifts.items()}
    assert counts == {name: min(layer.weight.flatten(1).shape) for name, layer in layers.items()}
    first = dict(tuning._spectra)
    tuning.add(private_copy(pipe), "dog", seeded())
    assert all(tuning._spectra[name] is each for name, each in first.items()), "decomposed once"
    tuning.add(private_copy(JeDiPipeline(**sd_parts(seed=1, in_channels=9))), "dog", seeded())
    assert not any(tuning._spectra[name] is each for name, each in first.items()), "another backbone"


def test_custom_diffusion_touches_keys_and_values_of_the_cross_attention(pipe: JeDiPipeline) -> None:
    own = private_copy(pipe)
    before = dict(own.unet.named_parameters())
    parameters = CustomDiffusion().add(own, "dog", seeded())
    now = dict(own.unet.named_parameters())
    replaced = {name for name in before if now[name] is not before[name]}
    assert replaced | {"text_encoder.newword"} == parameters.keys()
    cross = {name for name in before if ".attn2." in name}
    assert replaced == {name for name in cross if name.split(".")[-2] in ("to_k", "to_v")}
    assert replaced
    assert not any(name.endswith("bias") for name in replaced)


def test_dreambooth_holds_every_weight_of_the_unet(pipe: JeDiPipeline) -> None:
    parameters = DreamBooth().add(private_copy(pipe), "dog", seeded())
    assert parameters.keys() == dict(pipe.unet.named_parameters()).keys()


@pytest.mark.parametrize("factor", [-1, 4])
def test_diffusekrona_adds_a_kronecker_product(pipe: JeDiPipeline, factor: int) -> None:
    place = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
    layer, own = pipe.unet.get_submodule(place), private_copy(pipe)
    x = torch.randn(2, layer.in_features, generator=seeded(3))
    parameters = DiffuseKronA(factor=factor).add(own, "dog", seeded())
    with torch.no_grad():
        changed = own.unet.get_submodule(place)
        assert torch.equal(changed(x), layer(x)), "nothing is changed before the first step"
        for each in parameters.values():
            each.normal_(generator=seeded(4))
        two = {re.sub(r".*lokr_(\w+)\.default", r"\1", n): p for n, p in parameters.items() if place in n}
        assert two.keys() == {"w1", "w2"}, "both factors whole, none of low rank"
        assert torch.allclose(changed(x), layer(x) + x @ torch.kron(two["w1"], two["w2"]).T, atol=1e-4)
    kinds = {re.sub(r".*(attn[12])\.(\w+).*", r"\1.\2", name) for name in parameters}
    assert kinds == {f"attn{n}.to_{what}" for n in (1, 2) for what in ("q", "k", "v", "out")}
    assert pipe.unet.get_submodule(place) is layer


def test_adapters_repeat_by_seed_and_leave_the_global_state(pipe: JeDiPipeline) -> None:
    def start(seed: int) -> dict[str, torch.Tensor]:
        return DreamBooth(rank=2).add(private_copy(pipe), "dog", seeded(seed))

    state = torch.get_rng_state()
    one, again, other = start(1), start(1), start(2)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)
    carrying = private_copy(pipe)
    DreamBooth(rank=2).add(carrying, "dog", seeded())
    with pytest.raises(UsageError, match="unload them"):
        DreamBooth(rank=2).add(carrying, "dog", seeded())


def test_a_private_copy_shares_the_memory_of_weights_and_nothing_else(pipe: JeDiPipeline) -> None:
    flags = [each.requires_grad for each in pipe.unet.parameters()]
    own = private_copy(pipe)
    pairs = zip(pipe.unet.named_parameters(), own.unet.named_parameters(), strict=True)
    for (name, theirs), (same, mine) in pairs:
        assert (name, theirs.data_ptr()) == (same, mine.data_ptr())
        assert theirs is not mine
    assert own.unet is not pipe.unet
    assert own.config == pipe.config
    fresh = copies(own.unet, r"conv_in\..*")
    assert list(fresh) == ["conv_in.weight", "conv_in.bias"]
    with torch.no_grad():
        fresh["conv_in.bias"].add_(1)
    assert not torch.equal(own.unet.conv_in.bias, pipe.unet.conv_in.bias)
    assert [each.requires_grad for each in pipe.unet.parameters()] == flags
