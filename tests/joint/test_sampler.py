"""Sampling on many schedulers with denoisers whose answers are known, and the layout of the branches."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    KDPM2AncestralDiscreteScheduler,
    KDPM2DiscreteScheduler,
    LCMScheduler,
    LMSDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)

from jedi_diffusion.errors import UsageError
from jedi_diffusion.joint.guidance import MODES, Condition, plan_guidance
from jedi_diffusion.joint.sampler import CachedReferences, SamplingPlan, draw_noise, sample
from jedi_diffusion.randomness import seeded_generator, spawn_generators
from jedi_diffusion.sets import SetBatch

pytestmark = pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")  # of diffusers' KDPM2

SD = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
SCHEDULERS = {
    "ddim": lambda **more: DDIMScheduler(clip_sample=False, **SD, **more),
    "dpm": lambda **more: DPMSolverMultistepScheduler(**SD, **more),
    "euler": lambda **more: EulerDiscreteScheduler(**SD, **more),
    "lcm": lambda **more: LCMScheduler(**SD, **more),
}
OTHERS = {
    "euler ancestral": EulerAncestralDiscreteScheduler,
    "heun": HeunDiscreteScheduler,
    "kdpm2": KDPM2DiscreteScheduler,
    "kdpm2 ancestral": KDPM2AncestralDiscreteScheduler,
    "lms": LMSDiscreteScheduler,
    "pndm": PNDMScheduler,
    "unipc": UniPCMultistepScheduler,
}


def ready(name, steps=6, **settings):
    scheduler = SCHEDULERS[name](**settings) if name in SCHEDULERS else OTHERS[name](**SD, **settings)
    scheduler.set_timesteps(steps)
    return scheduler


def make_batch(set_sizes=(3, 2), given=(1, 1, 0, 1, 0), seed=0):
    """Sets of references and targets; a caption's features are its picture's number + 1."""
    mask = 1 - torch.tensor(given, dtype=torch.float32).view(-1, 1, 1, 1)
    latents = torch.randn(len(given), 4, 3, 3, generator=torch.Generator().manual_seed(seed))
    text = torch.arange(1.0, len(given) + 1).view(-1, 1, 1).expand(-1, 2, 3)
    return SetBatch(
        latents=latents * (1 - mask), mask=mask, conditions={"text": text}, set_sizes=tuple(set_sizes)
    )


NULL = {"text": torch.zeros(1, 2, 3)}


def set_mean_denoiser(noisy, timestep, batch, coupling="joint", reference_cache=None, attention_record=None):
    """Not linear in anything it sees, and every picture sees its whole set."""
    seen = noisy + batch.reference_latents + 0.1 * batch.mask + batch.text.mean((1, 2)).view(-1, 1, 1, 1)
    means = torch.cat(
        [part.tanh().mean(0, keepdim=True).expand_as(part) for part in seen.split(batch.set_sizes)]
    )
    return (means + noisy).sin() + 1e-4 * timestep


def run(
    name, batch, mode="joint", null_set="joint", denoiser=set_mean_denoiser, seeds=None, temperature=1.0,
    window=None, **settings,
):  # fmt: skip
    targets = int((~batch.is_reference).sum())
    generators = seeds or spawn_generators(0, targets)
    plan = SamplingPlan(batch, NULL, plan_guidance(mode, 3.0, 2.0), null_set, temperature=temperature)
    plan = replace(plan, **window or {})
    return sample(denoiser, ready(name, **settings), plan, draw_noise(batch, generators), generators)


def alphas(scheduler, timestep):
    """Of what the network sees at a timestep; between two of the table's log(sigma / alpha) is linear."""
    below = int(timestep)
    above = min(below + 1, len(scheduler.alphas_cumprod) - 1)
    ratios = (1 / scheduler.alphas_cumprod - 1).log() / 2
    ratio = torch.lerp(ratios[below], ratios[above], float(timestep) - below).exp()
    alpha = (1 + ratio**2) ** -0.5
    return alpha, ratio * alpha


@pytest.mark.parametrize("name", [*SCHEDULERS, *OTHERS])
def test_references_follow_the_forward_process_at_every_step(name):
    """Also in the second half of a step of second order, where the level lies between two of the table."""
    batch = make_batch()
    generators = spawn_generators(5, 2)
    noise = draw_noise(batch, spawn_generators(5, 2))
    scheduler = ready(name, steps=8, timestep_spacing="leading")
    plan = SamplingPlan(batch, NULL, plan_guidance("joint", 1.0))
    seen = []

    def record(noisy, timestep, batch, coupling="joint", reference_cache=None, attention_record=None):
        seen.append((noisy.clone(), timestep))
        return noisy * 0.1

    sample(record, scheduler, plan, noise, generators)
    assert len(seen) == len(scheduler.timesteps) >= 8
    for noisy, t in seen:
        given = batch.is_reference
        alpha, sigma = alphas(scheduler, t)  # what the network sees is in the variance-preserving scale
        expected = alpha * batch.latents[given] + sigma * noise[given]
        torch.testing.assert_close(noisy[given], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [*SCHEDULERS, *OTHERS])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_an_oracle_leads_every_scheduler_to_its_picture(name, prediction_type):
    """And from the first step on its picture is what the step gives for clean."""
    batch = make_batch((2,), (1, 0))
    wanted = torch.randn(1, 4, 3, 3, generator=torch.Generator().manual_seed(9))
    clean = []

    def oracle(noisy, timestep, batch, coupling="joint", reference_cache=None, attention_record=None):
        alpha, sigma = alphas(scheduler, timestep)
        noise = (noisy - alpha * wanted) / sigma
        return noise if prediction_type == "epsilon" else alpha * noise - sigma * wanted

    scheduler = ready(name, 20, prediction_type=prediction_type)
    generators = spawn_generators(0, 1)
    plan = SamplingPlan(batch, NULL, plan_guidance("joint", 3.0, 2.0))
    noise = draw_noise(batch, generators)
    latents = sample(oracle, scheduler, plan, noise, generators, lambda step: clean.append(step.clean))
    torch.testing.assert_close(latents, wanted, rtol=0, atol=0.1)
    assert len(clean) == len(scheduler.timesteps)
    torch.testing.assert_close(torch.cat(clean), wanted.expand(len(clean), -1, -1, -1), rtol=0, atol=0.02)


def test_a_network_that_predicts_the_picture_gives_it_for_clean():
    batch, clean = make_batch((2,), (1, 0)), []
    wanted = torch.randn(1, 4, 3, 3, generator=torch.Generator().manual_seed(9))
    plan = SamplingPlan(batch, NULL, plan_guidance("joint", 1.0))
    scheduler, generators = ready("ddim", prediction_type="sample"), spawn_generators(0, 1)
    noise = draw_noise(batch, generators)
    sample(
        lambda noisy, *_, **__: wanted.expand_as(noisy),
        scheduler,
        plan,
        noise,
        generators,
        lambda step: clean.append(step.clean),
    )
    assert all(torch.equal(each, wanted) for each in clean)


@pytest.mark.parametrize("name", [*SCHEDULERS, *OTHERS])
def test_the_first_latents_have_the_scale_of_the_scheduler(name):
    """Whatever a scheduler works in, the network at first sees noise of variance 1."""
    batch = make_batch()
    noise = draw_noise(batch, spawn_generators(0, 2))
    seen = []

    def record(noisy, timestep, batch, coupling="joint", reference_cache=None, attention_record=None):
        seen.append(noisy[~batch.is_reference])
        return noisy * 0.1

    plan = SamplingPlan(batch, NULL, plan_guidance("joint", 1.0), temperature=0.5)
    sample(record, ready(name), plan, noise, spawn_generators(0, 2))
    torch.testing.assert_close(seen[0], 0.5 * noise[~batch.is_reference], rtol=0.01, atol=0)


def test_steps_at_one_timestep_keep_their_own_noise_levels():
    """Many small steps: several share a rounded timestep, so that none may be looked up by it."""
    batch = make_batch((2,), (1, 0))
    noise = draw_noise(batch, spawn_generators(0, 1))
    scheduler = ready("dpm", steps=60, use_karras_sigmas=True)
    sigmas, timesteps = scheduler.sigmas.clone(), scheduler.timesteps.tolist()
    assert len(set(timesteps)) < len(timesteps)
    seen = []

    def record(noisy, timestep, batch, coupling="joint", reference_cache=None, attention_record=None):
        seen.append(noisy[0])
        return noisy * 0.1

    sample(record, scheduler, SamplingPlan(batch, NULL, plan_guidance("joint", 1.0)), noise, [])
    for noisy, sigma in zip(seen, sigmas[:-1], strict=True):
        expected = (batch.latents[0] + sigma * noise[0]) / (1 + sigma**2).sqrt()
        torch.testing.assert_close(noisy, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("mode", "temperature"),
    [("joint", 1.0), ("joint", 0.5), ("text_first", 1.0), ("image_first", 1.0), ("text_only", 1.0)],
)
def test_ddim_by_hand(mode, temperature):
    """Five steps of DDIM with equations 3 and 4, written out with one call a branch; scales 3 and 2."""
    batch = make_batch()
    noise = draw_noise(batch, spawn_generators(0, 2))
    scheduler = ready("ddim", steps=5, set_alpha_to_one=True)
    given, x = batch.is_reference, noise.clone()
    zeros, ones, silence = torch.zeros_like(x), torch.ones(5, 1, 1, 1), torch.zeros(5, 2, 3)
    null = SetBatch(zeros, ones, {"text": silence}, batch.set_sizes)
    text = SetBatch(zeros, ones, batch.conditions, batch.set_sizes)
    image = SetBatch(batch.latents, batch.mask, {"text": silence}, batch.set_sizes)
    x[~given] *= temperature
    for t in scheduler.timesteps.tolist():
        abar = scheduler.alphas_cumprod[t]
        after = scheduler.alphas_cumprod[t - 200] if t >= 200 else torch.tensor(1.0)
        x[given] = abar.sqrt() * batch.latents[given] + (1 - abar).sqrt() * noise[given]
        e0, e_text, e_image, e = (set_mean_denoiser(x, t, each) for each in (null, text, image, batch))
        eps = {
            "joint": e0 + 3 * (e - e0),
            "text_first": e0 + 3 * (e_text - e0) + 2 * (e - e_text),
            "image_first": e0 + 2 * (e_image - e0) + 3 * (e - e_image),
            "text_only": e_image + 3 * (e - e_image),
        }[mode]
        x0 = (x - (1 - abar).sqrt() * eps) / abar.sqrt()
        x = after.sqrt() * x0 + (1 - after).sqrt() * eps
    got = run("ddim", batch, mode, steps=5, set_alpha_to_one=True, temperature=temperature)
    torch.testing.assert_close(got, x[~given], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("null_set", ["joint", "single"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("given", [(1, 1, 0, 1, 0), (1, 0, 0, 0, 0)], ids=["one target", "joint targets"])
def test_steps_at_which_references_are_not_read_by_hand(mode, null_set, given):
    """Five steps of DDIM, of which the third and fourth read references; at the others sets are targets."""
    batch = make_batch(given=given)
    targets = int((~batch.is_reference).sum())
    noise = draw_noise(batch, spawn_generators(0, targets))
    scheduler = ready("ddim", steps=5, set_alpha_to_one=True)
    is_target, x = ~batch.is_reference, noise.clone()
    rows = torch.nonzero(is_target).flatten()
    own = tuple(int(part.sum()) for part in is_target.split(batch.set_sizes))
    alone, together = batch.select(rows, (1,) * targets), batch.select(rows, own)
    silent = {"text": torch.zeros(1, 2, 3)}
    ones = torch.ones_like(batch.mask)

    def whole(captions, pictures):
        """The branch of a step that reads references, its predictions for targets."""
        if not pictures and null_set == "single":
            return lambda x, t: set_mean_denoiser(
                x[is_target], t, alone if captions else alone.conditioned(silent)
            )
        shown = batch if captions else batch.conditioned(silent)
        shown = shown if pictures else replace(shown, latents=torch.zeros_like(noise), mask=ones)
        return lambda x, t: set_mean_denoiser(x, t, shown)[is_target]

    def unread(captions, pictures):
        shown = alone if not pictures and null_set == "single" else together
        return lambda x, t: set_mean_denoiser(
            x[is_target], t, shown if captions else shown.conditioned(silent)
        )

    for step, t in enumerate(scheduler.timesteps.tolist()):
        abar = scheduler.alphas_cumprod[t]
        after = scheduler.alphas_cumprod[t - 200] if t >= 200 else torch.tensor(1.0)
        x[~is_target] = abar.sqrt() * batch.latents[~is_target] + (1 - abar).sqrt() * noise[~is_target]
        kind = whole if step in (2, 3) else unread
        pairs = [(False, False), (True, False), (False, True), (True, True)]
        e0, e_text, e_image, e = (kind(*pair)(x, t) for pair in pairs)
        eps = {
            "joint": e0 + 3 * (e - e0),
            "text_first": e0 + 3 * (e_text - e0) + 2 * (e - e_text),
            "image_first": e0 + 2 * (e_image - e0) + 3 * (e - e_image),
            "text_only": e_image + 3 * (e - e_image),
        }[mode]
        x0 = (x[is_target] - (1 - abar).sqrt() * eps) / abar.sqrt()
        x[is_target] = after.sqrt() * x0 + (1 - after).sqrt() * eps
    window = {"references_start": 0.4, "references_stop": 0.8}
    got = run("ddim", batch, mode, null_set, steps=5, set_alpha_to_one=True, window=window)
    torch.testing.assert_close(got, x[is_target], rtol=1e-4, atol=1e-3)
    calls = []

    def counted(noisy, *given, **more):
        calls.append(len(noisy))
        return set_mean_denoiser(noisy, *given, **more)

    run("ddim", batch, mode, null_set, counted, steps=5, set_alpha_to_one=True, window=window)
    assert calls[0] == calls[1] == calls[4] < min(calls[2:4])


@pytest.mark.parametrize("null_set", ["joint", "single"])
@pytest.mark.parametrize("mode", MODES)
def test_branches_in_one_batch_equal_separate_calls(mode, null_set):
    batch = make_batch()
    calls = []

    def one_set_at_a_time(
        noisy, timestep, batch, coupling="joint", reference_cache=None, attention_record=None
    ):
        calls.append(batch.set_sizes)
        parts, start = [], 0
        for size in batch.set_sizes:
            rows = slice(start, start + size)
            alone = SetBatch(batch.latents[rows], batch.mask[rows], {"text": batch.text[rows]}, (size,))
            parts.append(set_mean_denoiser(noisy[rows], timestep, alone))
            start += size
        return torch.cat(parts)

    together = run("dpm", batch, mode, null_set)
    torch.testing.assert_close(run("dpm", batch, mode, null_set, one_set_at_a_time), together)
    whole = {"joint": 1, "text_first": 1, "image_first": 2, "text_only": 2}[mode]
    dropped = {"joint": 1, "text_first": 2, "image_first": 1, "text_only": 0}[mode]
    order = ((1, 1) if null_set == "single" else (3, 2)) * dropped + (3, 2) * whole
    assert calls == [order] * 6


def test_what_each_branch_sees():
    batch, seen = make_batch(), []

    def record(noisy, timestep, batch, coupling, reference_cache, attention_record):
        assert (coupling, reference_cache, attention_record) == ("joint", None, None)
        seen.append(batch)
        return noisy * 0

    run("ddim", batch, "text_first", "single", record)
    captions = seen[0].text[:, 0, 0].tolist()
    assert captions == [0, 0, 3, 5, 1, 2, 3, 4, 5]
    assert seen[0].mask.flatten().tolist() == [1, 1, 1, 1, 0, 0, 1, 0, 1]
    assert seen[0].reference_latents[:4].abs().max() == 0
    torch.testing.assert_close(seen[0].reference_latents[4:], batch.reference_latents)

    run("ddim", batch, "image_first", "joint", record)
    assert seen[-1].text[:, 0, 0].tolist() == [0] * 10 + [1, 2, 3, 4, 5]
    assert seen[-1].mask.flatten().tolist() == [1] * 5 + [0, 0, 1, 0, 1] * 2


@pytest.mark.parametrize("name", list(SCHEDULERS))
def test_a_picture_is_the_same_alone_and_in_a_larger_call(name):
    larger, alone = make_batch(), make_batch()
    alone = SetBatch(alone.latents[3:], alone.mask[3:], {"text": alone.text[3:]}, (2,))
    second = spawn_generators(0, 2)[1:]
    assert torch.equal(
        draw_noise(larger, spawn_generators(0, 2))[3:], draw_noise(alone, spawn_generators(0, 2)[1:])
    )
    together = run(name, larger)
    torch.testing.assert_close(run(name, alone, seeds=second), together[1:], rtol=0, atol=1e-4)


def test_spawned_generators_depend_on_seed_and_number_only():
    seeds = [each.initial_seed() for each in spawn_generators(7, 4)]
    assert seeds[:2] == [each.initial_seed() for each in spawn_generators(7, 2)]
    assert len({*seeds, *(each.initial_seed() for each in spawn_generators(8, 4))}) == 8
    assert len(spawn_generators(2**64 - 1, 1)) == 1
    # Recorded runs are repeated by them, so they must never change.
    assert seeds[:2] == [8460147692890830636, 3317731564112288844]


def test_noise_is_drawn_picture_by_picture_in_float32():
    """Three sets: a target from its own generator, then its set's references from the same one."""
    batch = make_batch((1, 2, 2), (0, 1, 0, 1, 0))
    half = SetBatch(batch.latents.half(), batch.mask, batch.conditions, batch.set_sizes)
    noise = draw_noise(half, spawn_generators(3, 3))
    assert noise.dtype == torch.float32
    for generator, rows in zip(spawn_generators(3, 3), ([0], [2, 1], [4, 3]), strict=True):
        for row in rows:
            assert torch.equal(noise[row], torch.randn(4, 3, 3, generator=generator))


def test_all_of_a_seed_counts():
    """torch takes the low 32 bits; seeds that are less are torch's own, and give what they always gave."""
    seeds = [4, 2**32 + 4, 2**40 + 4, 2**62, 2**62 + 2**32]
    noise = [torch.randn(64, generator=seeded_generator(seed)) for seed in seeds]
    assert torch.equal(noise[0], torch.randn(64, generator=torch.Generator().manual_seed(4)))
    assert len({tuple(each.tolist()) for each in noise}) == len(seeds)
    assert all(abs(each.mean()) < 0.5 and 0.7 < each.std() < 1.3 for each in noise)
    assert [seeded_generator(seed).initial_seed() for seed in seeds] == seeds


def test_a_long_seed_is_all_of_the_mersenne_twisters_state():
    """The numbers are those of numpy's twister with the same words: torch keeps them where we put them."""
    twister = np.random.MT19937()
    key = np.random.SeedSequence(2**40 + 4).generate_state(624, np.uint32)
    twister.state = {"bit_generator": "MT19937", "state": {"key": key, "pos": 624}}
    ours = torch.randint(2**20, (2000,), generator=seeded_generator(2**40 + 4))
    assert ours.tolist() == [int(each) % 2**20 for each in twister.random_raw(2000)]


def test_cached_references_are_read_by_branch():
    batch = make_batch((1, 1), (0, 0))
    indices, calls = [], []
    cache = SimpleNamespace(for_sets=lambda index: indices.append(list(index)) or "view")

    def record(noisy, timestep, batch, coupling="joint", reference_cache=None, attention_record=None):
        calls.append((coupling, reference_cache, batch.set_sizes))
        return noisy * 0

    cached = CachedReferences(cache, {True: 0, False: 1})
    plan = SamplingPlan(batch, NULL, plan_guidance("image_first", 3.0, 2.0), "joint", cached)
    generators = spawn_generators(0, 2)
    sample(record, ready("ddim"), plan, draw_noise(batch, generators), generators)
    assert indices == [[None, None, 1, 1, 0, 0]]
    assert calls == [("cached", "view", (1,) * 6)] * 6


def test_callback_sees_and_changes_latents_and_stop_ends_the_loop():
    batch = make_batch()
    generators = spawn_generators(0, 2)
    plan = SamplingPlan(batch, NULL, plan_guidance("joint", 3.0))
    steps = []

    def callback(step):
        steps.append(step.number)
        assert step.timestep == ready("ddim").timesteps[step.number]
        return torch.full_like(step.latents, 7.0)

    noise = draw_noise(batch, generators)
    latents = sample(
        set_mean_denoiser,
        ready("ddim"),
        plan,
        noise,
        generators,
        callback,
        should_stop=lambda: len(steps) == 2,
    )
    assert steps == [0, 1]
    assert latents.unique().tolist() == [7.0]


def test_guidance_can_run_one_branch_only():
    assert plan_guidance("joint", 1.0).branches == (Condition(text=True, pictures=True),)
    widths = []

    def record(noisy, timestep, batch, coupling="joint", reference_cache=None, attention_record=None):
        widths.append(len(noisy))
        return noisy * 0

    batch = make_batch()
    plan = SamplingPlan(batch, NULL, plan_guidance("joint", 1.0))
    generators = spawn_generators(0, 2)
    sample(record, ready("ddim"), plan, draw_noise(batch, generators), generators)
    assert widths == [5] * 6


@pytest.mark.parametrize("mode", ["joint", "text_first"])
def test_guidance_acts_between_its_start_and_stop_alone(mode):
    """A loop by hand over DDIM: all branches in the third to sixth of 8 steps, else the full one."""
    batch = make_batch()
    noise = draw_noise(batch, spawn_generators(3, 2))
    given, rows = batch.is_reference, []

    def counting(noisy, timestep, batch, coupling="joint", reference_cache=None, attention_record=None):
        rows.append(len(noisy))
        return set_mean_denoiser(noisy, timestep, batch)

    guidance = plan_guidance(mode, 3.0, 2.0, (0.25, 0.75))
    plan = SamplingPlan(batch, NULL, guidance)
    found = sample(counting, ready("ddim", steps=8), plan, noise, spawn_generators(3, 2))

    scheduler = ready("ddim", steps=8)
    blank = {"latents": torch.zeros_like(batch.latents), "mask": torch.ones_like(batch.mask)}
    text_alone = replace(batch, **blank)
    null = text_alone.conditioned(NULL)
    latents = noise[~given]
    for step, timestep in enumerate(scheduler.timesteps):
        alpha, sigma = alphas(scheduler, timestep)
        noisy = alpha * batch.latents + sigma * noise
        noisy[~given] = latents
        full, partial, empty = (
            set_mean_denoiser(noisy, timestep, each)[~given] for each in (batch, text_alone, null)
        )
        guided = full
        if step in (2, 3, 4, 5) and mode == "joint":
            guided = empty + 3 * (full - empty)
        elif step in (2, 3, 4, 5):
            guided = empty + 3 * (partial - empty) + 2 * (full - partial)
        latents = scheduler.step(guided, timestep, latents).prev_sample
    assert torch.allclose(found, latents, atol=1e-5)
    branches = 2 if mode == "joint" else 3
    assert rows == [5] * 2 + [5 * branches] * 4 + [5] * 2


def test_outside_of_its_interval_guidance_of_any_scale_is_none():
    """Also where the scale leaves the full branch out: a scale of 0 is not the same as no guidance."""
    for scale in (0.0, 1.0, 7.0):
        guidance = plan_guidance("joint", scale, interval=(0.5, 0.5))
        assert {guidance.at(step, 4).branches for step in range(4)} == {((True, True),)}
        assert (True, True) in guidance.conditions
    assert plan_guidance("joint", 0.0).conditions == {(False, False)}
    for interval in ((0.6, 0.4), (-0.1, 1.0), (0.0, float("nan"))):
        with pytest.raises(UsageError, match="guidance_st"):
            plan_guidance("joint", 3.0, interval=interval)
