"""Equation 2 against a loop written by hand, and the identities of v-prediction."""

import pytest
import torch
from diffusers import DDIMScheduler

from jedi_diffusion.diffusion.loss import JointLoss
from jedi_diffusion.errors import UsageError
from jedi_diffusion.sets import SetBatch

SIZES = (3, 1, 2)


def make_batch(weight: torch.Tensor | None = None) -> SetBatch:
    generator = torch.Generator().manual_seed(3)
    return SetBatch(
        latents=torch.randn(6, 4, 5, 5, generator=generator),
        mask=torch.tensor([0.0, 1, 0, 1, 1, 0]).view(6, 1, 1, 1),
        text=torch.zeros(6, 2, 3),
        set_sizes=SIZES,
        weight=weight,
    )


def scheduler(**settings) -> DDIMScheduler:
    return DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, **settings)


def halve(noisy, timestep, batch, coupling="joint", reference_cache=None):
    return 0.5 * noisy + 0.001 * timestep.view(-1, 1, 1, 1)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("coupling", ["joint", "cached"])
@pytest.mark.parametrize("weighted", [False, True])
def test_loss_equals_a_loop_over_pictures(prediction_type, coupling, weighted):
    weight = torch.rand(6, 1, 5, 5, generator=torch.Generator().manual_seed(5)) if weighted else None
    batch = make_batch(weight)
    steps = scheduler(prediction_type=prediction_type)
    loss = JointLoss.from_scheduler(steps, reference_weight=0.25)
    measured = loss(halve, batch, torch.Generator().manual_seed(11), coupling=coupling)

    generator = torch.Generator().manual_seed(11)
    set_timesteps = torch.randint(0, 1000, (3,), generator=generator)
    noise = torch.randn(6, 4, 5, 5, generator=generator)
    top, bottom, picture = 0.0, 0.0, 0
    for number, size in enumerate(SIZES):
        for _ in range(size):
            x0, n, t = batch.latents[picture], noise[picture], set_timesteps[number]
            given = batch.mask[picture].item() == 0
            abar = steps.alphas_cumprod[t].item()
            target = n if prediction_type == "epsilon" else abar**0.5 * n - (1 - abar) ** 0.5 * x0
            noisy = abar**0.5 * x0 + (1 - abar) ** 0.5 * n
            if given and coupling == "cached":
                noisy, t = x0, torch.tensor(0)
            error = (0.5 * noisy + 0.001 * t - target) ** 2
            w = torch.ones(5, 5) if weight is None else weight[picture, 0]
            if given:
                w = w * (0.0 if coupling == "cached" else 0.25)
            top, bottom = top + (w * error).sum().item(), bottom + 4 * w.sum().item()
            picture += 1
    assert measured.item() == pytest.approx(top / bottom, rel=1e-4)


def test_a_set_shares_its_timestep_and_sets_differ():
    timesteps = (
        JointLoss.from_scheduler(scheduler()).draw(make_batch(), torch.Generator().manual_seed(0)).timesteps
    )
    assert timesteps[0] == timesteps[1] == timesteps[2]
    assert timesteps[4] == timesteps[5]
    assert len(set(timesteps.tolist())) == 3


def test_timesteps_are_uniform_over_the_whole_schedule():
    batch = SetBatch(
        torch.zeros(4000, 1, 1, 1), torch.ones(4000, 1, 1, 1), torch.zeros(4000, 1, 1), (1,) * 4000
    )
    drawn = JointLoss(torch.linspace(0.9, 0.1, 10)).draw(batch, torch.Generator().manual_seed(0)).timesteps
    counts = torch.bincount(drawn, minlength=10)
    assert len(counts) == 10
    assert (counts - 400).abs().max() < 4 * 19


@pytest.mark.parametrize("zero_snr", [False, True])
def test_v_prediction_gives_back_x0_and_the_noise(zero_snr):
    steps = scheduler(prediction_type="v_prediction", rescale_betas_zero_snr=zero_snr)
    batch = make_batch()
    draw = JointLoss.from_scheduler(steps).draw(batch, torch.Generator().manual_seed(1))
    abar = steps.alphas_cumprod[draw.timesteps].view(-1, 1, 1, 1)
    torch.testing.assert_close(abar.sqrt() * draw.noisy - (1 - abar).sqrt() * draw.target, batch.latents)
    noise = (1 - abar).sqrt() * draw.noisy + abar.sqrt() * draw.target
    torch.testing.assert_close(
        steps.add_noise(batch.latents, noise, draw.timesteps), draw.noisy, rtol=1e-4, atol=1e-5
    )
    if zero_snr:
        assert JointLoss.from_scheduler(steps).alphas_cumprod[-1] == 0


def test_no_weight_at_all_gives_zero_and_finite_gradients():
    scale = torch.ones((), requires_grad=True)
    loss = JointLoss.from_scheduler(scheduler())
    value = loss(
        lambda noisy, *_, **__: noisy * scale,
        make_batch(torch.zeros(6, 1, 5, 5)),
        torch.Generator().manual_seed(0),
    )
    value.backward()
    assert value.item() == 0
    assert scale.grad.item() == 0


def test_the_draw_is_a_function_of_the_generator():
    loss = JointLoss.from_scheduler(scheduler())
    first, again, other = (loss(halve, make_batch(), torch.Generator().manual_seed(s)) for s in (7, 7, 8))
    assert first == again
    assert first != other


def test_unknown_prediction_types_are_refused():
    with pytest.raises(UsageError, match="sample"):
        JointLoss.from_scheduler(scheduler(prediction_type="sample"))
