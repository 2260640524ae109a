"""Flow matching against diffusers' schedulers, published densities, and an oracle that knows its image."""

import pytest
import torch
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_flow_match_heun_discrete import FlowMatchHeunDiscreteScheduler

from jedi_diffusion.errors import UsageError
from jedi_diffusion.joint import (
    Diffusion,
    Flow,
    JointLoss,
    SamplingPlan,
    draw_noise,
    plan_guidance,
    process_of,
    sample,
)
from jedi_diffusion.randomness import spawn_generators
from jedi_diffusion.sets import SetBatch

SCHEDULERS = {
    "euler": lambda: FlowMatchEulerDiscreteScheduler(shift=3.0),
    "heun": lambda: FlowMatchHeunDiscreteScheduler(shift=3.0),
    "dpm": lambda: DPMSolverMultistepScheduler(
        use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0
    ),
}


def pair(seed: int = 0) -> SetBatch:
    """One reference and one target of 2 channels."""
    latents = torch.randn(2, 2, 3, 3, generator=torch.Generator().manual_seed(seed))
    mask = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1)
    return SetBatch(latents * (1 - mask), mask, {"text": torch.zeros(2, 1, 1)}, (2,))


@pytest.mark.parametrize("name", SCHEDULERS)
def test_an_oracle_leads_every_flow_scheduler_to_its_image_beside_references_on_their_line(name: str) -> None:
    scheduler = SCHEDULERS[name]()
    scheduler.set_timesteps(12)
    assert isinstance(process_of(scheduler), Flow)
    batch, wanted = pair(), torch.randn(1, 2, 3, 3, generator=torch.Generator().manual_seed(5))
    generators = spawn_generators(0, 1)
    noise = draw_noise(batch, generators)
    near = {"atol": 5e-3 if name == "dpm" else 1e-4, "rtol": 0}  # that one rounds timesteps to whole numbers

    def oracle(noisy, time, batch, coupling="joint", reference_cache=None, attention_record=None):
        torch.testing.assert_close(noisy[:1], (1 - time) * batch.latents[:1] + time * noise[:1], **near)
        clean = torch.cat([batch.latents[:1], wanted])
        return (noisy - clean) / time

    plan = SamplingPlan(batch, {}, plan_guidance("joint", 1.0))
    seen = []
    made = sample(oracle, scheduler, plan, noise, generators, lambda step: seen.append(step.clean))
    torch.testing.assert_close(made, wanted, **near)
    for clean in seen:
        torch.testing.assert_close(clean, wanted, **near)


def test_the_forward_process_is_the_schedulers() -> None:
    scheduler = SCHEDULERS["euler"]()
    scheduler.set_timesteps(7)
    clean, noise = torch.randn(2, 1, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    flow = process_of(scheduler)
    for timestep in scheduler.timesteps:
        ours = flow.level_of_step(scheduler, timestep, clean).add_noise(clean, noise)
        torch.testing.assert_close(ours, scheduler.scale_noise(clean, timestep[None], noise))
        scheduler.step(clean, timestep, clean)


def test_training_times_have_the_published_density() -> None:
    """SD3's eq. 19: the logit of an unshifted time is standard normal; diffusers' shift is eq. 23."""
    place = torch.arange(20_000).add(0.5)
    logits = Flow().times(place, 20_000).logit()
    assert abs(float(logits.mean())) < 1e-3
    assert abs(float(logits.std()) - 1) < 1e-2
    assert float((logits < 1).float().mean()) == pytest.approx(0.8413, abs=1e-3)
    uniform = Flow("uniform").times(place, 20_000)
    torch.testing.assert_close(uniform, place / 20_000)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    torch.testing.assert_close(
        Flow("uniform", shift=3.0).times(torch.arange(1000, 0, -1), 1000), scheduler.timesteps / 1000
    )


def test_the_loss_of_a_flow_is_the_error_of_its_velocity() -> None:
    batch, seen = pair(), {}

    def guess(noisy, times, batch, coupling="joint", reference_cache=None, attention_record=None):
        seen.update(noisy=noisy, times=times)
        return torch.zeros_like(noisy)

    loss = JointLoss(Flow("uniform"))
    value = loss(guess, batch, torch.Generator().manual_seed(0))
    assert seen["times"][0] == seen["times"][1]
    time = seen["times"].view(2, 1, 1, 1)
    noise = (seen["noisy"] - (1 - time) * batch.latents) / time
    torch.testing.assert_close(value, ((noise - batch.latents) ** 2).mean())
    cached = loss.draw(batch, torch.Generator().manual_seed(0), "cached")
    assert cached.timesteps[0] == 0
    assert torch.equal(cached.noisy[0], batch.latents[0])


def test_what_a_flow_cannot_be_told_is_refused() -> None:
    with pytest.raises(UsageError, match="shift"):
        Flow(shift=0)
    with pytest.raises(UsageError, match="min_snr"):
        JointLoss(Flow(), min_snr=5.0).draw(pair(), torch.Generator())
    with pytest.raises(UsageError, match="prediction types"):
        Diffusion(torch.ones(3), "score")
