"""Equation 2 against a loop written by hand, and the identities of v-prediction."""

from dataclasses import replace

import pytest
import torch
from diffusers import DDIMScheduler

from jedi_diffusion.errors import UsageError
from jedi_diffusion.joint.loss import JointLoss, NoiseDraw
from jedi_diffusion.joint.process import Diffusion
from jedi_diffusion.sets import REFERENCE_TIMESTEP, SetBatch

SIZES = (3, 1, 2)


def make_batch(weight: torch.Tensor | None = None) -> SetBatch:
    generator = torch.Generator().manual_seed(3)
    return SetBatch(
        latents=torch.randn(6, 4, 5, 5, generator=generator),
        mask=torch.tensor([0.0, 1, 0, 1, 1, 0]).view(6, 1, 1, 1),
        conditions={"text": torch.zeros(6, 2, 3)},
        set_sizes=SIZES,
        weight=weight,
    )


def scheduler(**settings) -> DDIMScheduler:
    return DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, **settings)


def halve(noisy, timestep, batch, coupling="joint", reference_cache=None, attention_record=None):
    return 0.5 * noisy + 0.001 * timestep.view(-1, 1, 1, 1)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("coupling", ["joint", "cached"])
@pytest.mark.parametrize("weighted", [False, True])
def test_loss_equals_a_loop_over_pictures(prediction_type, coupling, weighted):
    weight = torch.rand(6, 1, 5, 5, generator=torch.Generator().manual_seed(5)) if weighted else None
    batch = make_batch(weight)
    steps = scheduler(prediction_type=prediction_type)
    loss = JointLoss.from_scheduler(steps, reference_weight=0.25)
    measured = loss(halve, batch, torch.Generator().manual_seed(11), coupling=coupling)

    generator = torch.Generator().manual_seed(11)
    places = torch.randperm(3, generator=generator) + torch.rand(3, generator=generator)
    set_timesteps = (places * 1000 / 3).long()
    noise = torch.randn(6, 4, 5, 5, generator=generator)
    top, bottom, picture = 0.0, 0.0, 0
    for number, size in enumerate(SIZES):
        for _ in range(size):
            x0, n, t = batch.latents[picture], noise[picture], set_timesteps[number]
            given = batch.mask[picture].item() == 0
            abar = steps.alphas_cumprod[t].item()
            v = abar**0.5 * n - (1 - abar) ** 0.5 * x0
            target = {"epsilon": n, "v_prediction": v, "sample": x0}[prediction_type]
            noisy = abar**0.5 * x0 + (1 - abar) ** 0.5 * n
            if given and coupling == "cached":
                noisy, t = x0, torch.tensor(0)
            error = (0.5 * noisy + 0.001 * t - target) ** 2
            if prediction_type == "sample":
                error = error / (1 - abar)
            w = torch.ones(5, 5) if weight is None else weight[picture, 0]
            if given:
                w = w * (0.0 if coupling == "cached" else 0.25)
            top, bottom = top + (w * error).sum().item(), bottom + 4 * w.sum().item()
            picture += 1
    assert measured.item() == pytest.approx(top / bottom, rel=1e-4)


@pytest.mark.parametrize("coupling", ["joint", "cached"])
def test_the_denoiser_is_given_the_batch_and_the_coupling(coupling):
    """Clean references run at the very timestep at which they run in sampling."""
    batch = make_batch()
    loss = JointLoss.from_scheduler(scheduler())
    calls = []

    def record(noisy, timestep, batch, coupling):
        calls.append((timestep, batch, coupling))
        return noisy

    settings = {} if coupling == "joint" else {"coupling": coupling}  # "joint" if none is named
    loss(record, batch, torch.Generator().manual_seed(0), **settings)
    loss.errors(record, batch, loss.draw(batch, torch.Generator().manual_seed(0), **settings), **settings)
    for timestep, seen, named in calls:
        assert seen is batch
        assert named == coupling
        at_zero = timestep[batch.is_reference] == REFERENCE_TIMESTEP
        assert bool(at_zero.all()) == (coupling == "cached")


@pytest.mark.parametrize("bad", [-0.1, float("inf"), float("nan")])
def test_weights_out_of_range_are_refused(bad):
    for name in ("reference_weight", "min_snr"):
        with pytest.raises(UsageError, match=f"{name} must be .*, but is {bad}"):
            JointLoss.from_scheduler(scheduler(), **{name: bad})
    with pytest.raises(UsageError, match="min_snr must be more than 0, but is 0"):
        JointLoss.from_scheduler(scheduler(), min_snr=0)
    sound = JointLoss.from_scheduler(scheduler(), reference_weight=0, min_snr=0.5)
    assert (sound.reference_weight, sound.min_snr) == (0, 0.5)


def test_a_set_shares_its_timestep_and_sets_differ():
    timesteps = (
        JointLoss.from_scheduler(scheduler()).draw(make_batch(), torch.Generator().manual_seed(0)).timesteps
    )
    assert timesteps[0] == timesteps[1] == timesteps[2]
    assert timesteps[4] == timesteps[5]
    assert len(set(timesteps.tolist())) == 3


def test_a_batch_has_a_timestep_in_each_equal_part_of_the_schedule():
    loss, generator = JointLoss.from_scheduler(scheduler()), torch.Generator().manual_seed(0)
    orders = set()
    for _ in range(50):
        thirds = [
            3 * step // 1000 for step in loss.draw(make_batch(), generator).timesteps[[0, 3, 4]].tolist()
        ]
        assert sorted(thirds) == [0, 1, 2]
        orders.add(tuple(thirds))
    assert len(orders) == 6


def test_timesteps_are_uniform_over_the_whole_schedule():
    batch = SetBatch(torch.zeros(4000, 1, 1, 1), torch.ones(4000, 1, 1, 1), {}, (1,) * 4000)
    drawn = (
        JointLoss(Diffusion(torch.linspace(0.9, 0.1, 10)))
        .draw(batch, torch.Generator().manual_seed(0))
        .timesteps
    )
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
        assert JointLoss.from_scheduler(steps).process.alphas_cumprod[-1] == 0


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
    with pytest.raises(UsageError, match=r"prediction types epsilon, v_prediction, sample, not .score"):
        JointLoss.from_scheduler(scheduler(prediction_type="score"))


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_min_snr_weighs_every_noise_level_as_published(prediction_type):
    abar = torch.tensor([0.999, 0.9, 0.5, 0.1, 0.0])
    loss = JointLoss(Diffusion(abar, prediction_type), min_snr=5.0)
    batch = SetBatch(torch.ones(200, 1, 1, 1), torch.ones(200, 1, 1, 1), {}, (1,) * 200)
    draw = loss.draw(batch, torch.Generator().manual_seed(0))
    for step, emphasis in zip(draw.timesteps.tolist(), draw.emphasis.flatten().tolist(), strict=True):
        snr = abar[step].item() / (1 - abar[step].item())
        expected = min(snr, 5) / (snr + 1)
        if prediction_type == "epsilon":
            expected = min(snr, 5) / snr if snr else 1.0
        assert emphasis == pytest.approx(expected, rel=1e-3)
    assert set(draw.timesteps.tolist()) == set(range(5))

    def perfect(noisy, timestep, batch, coupling="joint", reference_cache=None, attention_record=None):
        return draw.target + 1

    # The mean's denominator counts pictures, not their emphasis.
    errors = loss.errors(perfect, batch, draw)
    assert torch.allclose(errors, draw.emphasis)
    mean = loss(perfect, batch, torch.Generator().manual_seed(0))
    assert mean.item() == pytest.approx(errors.mean().item())


def test_draws_of_sets_join_in_order():
    loss = JointLoss(Diffusion(torch.linspace(0.9, 0.1, 10)))
    whole = make_batch()
    parts = [whole.select(rows, (len(rows),)) for rows in ([0, 1, 2], [3], [4, 5])]
    draws = [loss.draw(part, torch.Generator().manual_seed(n)) for n, part in enumerate(parts)]
    joined = NoiseDraw.concatenate(draws)
    assert joined.noisy.shape == whole.latents.shape
    assert torch.equal(joined.target[3:4], draws[1].target)
    assert torch.equal(joined.timesteps[4:], draws[2].timesteps)


def test_a_prediction_of_the_sample_is_judged_as_the_v_it_implies():
    steps = scheduler()
    sample, v = (JointLoss.from_scheduler(steps) for _ in range(2))
    levels = sample.process.alphas_cumprod
    sample = replace(sample, process=Diffusion(levels, "sample"))
    v = replace(v, process=Diffusion(levels, "v_prediction"))
    batch = make_batch()
    drawn = v.draw(batch, torch.Generator().manual_seed(4))
    alpha, sigma = (
        steps.alphas_cumprod[drawn.timesteps].sqrt(),
        (1 - steps.alphas_cumprod[drawn.timesteps]).sqrt(),
    )

    def guess(noisy, timestep, batch, coupling="joint", reference_cache=None, attention_record=None):
        return 0.3 * noisy

    def as_v(noisy, timestep, batch, coupling="joint", reference_cache=None, attention_record=None):
        a, s = (each.view(-1, 1, 1, 1) for each in (alpha, sigma))
        return (a * noisy - guess(noisy, timestep, batch)) / s

    losses = [
        loss(each, batch, torch.Generator().manual_seed(4)) for loss, each in ((sample, guess), (v, as_v))
    ]
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-4)


def test_min_snr_bounds_what_near_clean_samples_count():
    loss = JointLoss(Diffusion(torch.tensor([0.9999, 0.5, 0.0]), "sample"), min_snr=5.0)
    batch = SetBatch(torch.ones(50, 1, 1, 1), torch.ones(50, 1, 1, 1), {}, (1,) * 50)
    draw = loss.draw(batch, torch.Generator().manual_seed(0))
    by_step = dict(zip(draw.timesteps.tolist(), draw.emphasis.flatten().tolist(), strict=True))
    assert by_step == pytest.approx({0: 6.0, 1: 2.0, 2: 1.0}, rel=1e-5)
