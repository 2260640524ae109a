"""Coupling "cached" against its plain twin (one masked pass without a cache), and the life of a cache."""

import gc
import weakref

import pytest
import torch

from jedi_diffusion.backbones.unet import UNetBackbone, make_joint
from jedi_diffusion.errors import UsageError
from jedi_diffusion.joint.attention import SetReads
from jedi_diffusion.joint.cache import ReferenceCache
from jedi_diffusion.sets import REFERENCE_TIMESTEP
from tests.helpers.small_models import (
    near_sd14_unet,
    random_batch,
    randomize_new_channels,
    small_sd14_unet,
    small_sdxl_unet,
    tiny_unet,
)

BUILDERS = {"sd14": small_sd14_unet, "sdxl": small_sdxl_unet, "near": near_sd14_unet}
STEP = 400

# Sets of mixed make-up: two references and a target, a lone target, two and two, no target.
SIZES = (3, 1, 4, 2)
REFERENCES = (0, 2, 5, 6, 8, 9)


@pytest.fixture(params=BUILDERS.values(), ids=BUILDERS.keys())
def denoiser(request):
    return UNetBackbone(randomize_new_channels(make_joint(request.param())))


def noise_like(latents, seed=1):
    return torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed))


def masked_twin(unet, noisy, batch):
    """Everything in one pass: references clean at their timestep, attention masked by who is a reference."""
    given = batch.is_reference
    noisy = torch.where(given.view(-1, 1, 1, 1), batch.latents, noisy)
    steps = torch.where(given, REFERENCE_TIMESTEP, STEP)
    mask = batch.mask.expand(-1, 1, *noisy.shape[2:])
    return unet(
        torch.cat([noisy, mask, batch.reference_latents], dim=1), steps, batch.text,
        added_cond_kwargs={
            "text_embeds": batch.conditions.get("pooled_text"),
            "time_ids": batch.conditions.get("time_ids"),
        },
        cross_attention_kwargs={
            "reads": SetReads(batch.set_sizes, is_reference=given, grid=tuple(noisy.shape[2:]))
        },
    ).sample  # fmt: skip


@torch.no_grad()
def test_training_path_equals_the_masked_twin(denoiser):
    batch = random_batch(denoiser.unet, SIZES, REFERENCES)
    noisy = noise_like(batch.latents)
    want = masked_twin(denoiser.unet, noisy, batch)
    steps = torch.full((10,), STEP)
    torch.testing.assert_close(denoiser(noisy, steps, batch, "cached"), want, atol=1e-5, rtol=0)
    torch.testing.assert_close(denoiser(noisy, STEP, batch, "cached"), want, atol=1e-5, rtol=0)


@torch.no_grad()
def test_sampling_path_equals_the_masked_twin(denoiser):
    """One fill serves a later call whose branches, with and without references, share a batch."""
    batch = random_batch(denoiser.unet, SIZES, REFERENCES)
    noisy = noise_like(batch.latents)
    want = masked_twin(denoiser.unet, noisy, batch)
    cache = denoiser.fill_cache(batch.select([0, 2, 5, 6, 8, 9], (2, 2, 2)))
    order = [7, 3, 1, 4]
    view = cache.for_sets([1, None, 0, 1])
    got = denoiser(noisy[order], STEP, batch.select(order, (1, 1, 1, 1)), "cached", view)
    torch.testing.assert_close(got, want[order], atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("references", [(), (0, 1, 2, 3)], ids=["no reference", "no target"])
def test_batches_of_one_kind(denoiser, references):
    batch = random_batch(denoiser.unet, (3, 1), references)
    noisy = noise_like(batch.latents)
    got = denoiser(noisy, STEP, batch, "cached")
    torch.testing.assert_close(got, masked_twin(denoiser.unet, noisy, batch), atol=1e-5, rtol=0)


@torch.no_grad()
def test_targets_of_one_set_see_each_other_and_the_references(denoiser):
    """A target set of two with a cache: a change in one target, or in a reference, reaches the other."""
    references = random_batch(denoiser.unet, (2,), (0, 1))
    targets = random_batch(denoiser.unet, (2, 1), seed=1)
    view = denoiser.fill_cache(references).for_sets([0, None])
    noisy = noise_like(targets.latents)
    before = denoiser(noisy, STEP, targets, "cached", view)
    noisy[1] += 1
    after = denoiser(noisy, STEP, targets, "cached", view)
    assert not torch.equal(before[0], after[0])
    assert torch.equal(before[2], after[2])
    references.latents[1] += 1
    other = denoiser(noisy, STEP, targets, "cached", denoiser.fill_cache(references).for_sets([0, None]))
    assert not torch.equal(other[0], after[0])
    assert torch.equal(other[2], after[2])


@torch.no_grad()
def test_references_depend_on_references_only(denoiser):
    batch = random_batch(denoiser.unet, SIZES, REFERENCES)
    before = denoiser(noise_like(batch.latents), STEP, batch, "cached")
    after = denoiser(noise_like(batch.latents, seed=2), STEP, batch, "cached")
    given = batch.is_reference
    assert torch.equal(before[given], after[given])
    assert (before[~given] != after[~given]).flatten(1).any(dim=1).all()


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
def test_gradients_equal_the_masked_twin(denoiser, checkpointing):
    unet = denoiser.unet.double().train()
    batch = random_batch(unet, SIZES, REFERENCES).to(torch.float64)
    noisy, weight = noise_like(batch.latents).double(), noise_like(batch.latents, seed=3).double()
    (masked_twin(unet, noisy, batch) * weight).sum().backward()
    want = {name: p.grad.clone() for name, p in unet.named_parameters()}
    unet.zero_grad()
    if checkpointing:
        unet.enable_gradient_checkpointing()
    (denoiser(noisy, STEP, batch, "cached") * weight).sum().backward()
    got = {name: p.grad for name, p in unet.named_parameters()}
    torch.testing.assert_close(got, want, atol=1e-8, rtol=1e-5)


def test_gradients_of_the_targets_reach_the_references_weights(denoiser):
    """With a loss on the target alone, the reference pass still gets its share through keys and values."""
    unet = denoiser.unet.train()
    batch = random_batch(unet, (2,), (0,))
    batch.latents.requires_grad_()
    noisy = noise_like(batch.latents)
    denoiser(noisy, STEP, batch, "cached")[1].square().sum().backward()
    assert batch.latents.grad[0].abs().sum() > 0


@torch.no_grad()
def test_a_compiled_unet_fills_and_reads_a_cache():
    torch.compiler.reset()
    unet = randomize_new_channels(make_joint(tiny_unet()))
    batch = random_batch(unet, (2, 1), (0,))
    noisy = noise_like(batch.latents)
    want = UNetBackbone(unet)(noisy, STEP, batch, "cached")
    compiled = UNetBackbone(torch.compile(unet, backend="eager", fullgraph=True))
    for _ in range(2):
        torch.testing.assert_close(compiled(noisy, STEP, batch, "cached"), want, atol=1e-5, rtol=0)


@torch.no_grad()
def test_bfloat16(denoiser):
    batch = random_batch(denoiser.unet, SIZES, REFERENCES)
    noisy = noise_like(batch.latents)
    want = denoiser(noisy, STEP, batch, "cached")
    denoiser.unet.to(torch.bfloat16)
    got = denoiser(noisy, STEP, batch, "cached")
    assert (got - want).abs().mean() < 0.03 * want.std()


@torch.no_grad()
def test_two_subjects_in_one_cache_do_not_touch(denoiser):
    """Bit-equal whoever the other subject is; equal to being alone up to how BLAS splits a larger batch."""
    references = random_batch(denoiser.unet, (2, 2), (0, 1, 2, 3))
    target = random_batch(denoiser.unet, (1,), seed=1)
    noisy = noise_like(target.latents)
    first = denoiser(noisy, STEP, target, "cached", denoiser.fill_cache(references).for_sets([0]))
    alone = denoiser.fill_cache(references.select([0, 1], (2,))).for_sets([0])
    torch.testing.assert_close(denoiser(noisy, STEP, target, "cached", alone), first, atol=1e-5, rtol=0)
    references.latents[2:] += 5
    other = denoiser.fill_cache(references)
    assert torch.equal(denoiser(noisy, STEP, target, "cached", other.for_sets([0])), first)
    assert not torch.allclose(denoiser(noisy, STEP, target, "cached", other.for_sets([1])), first, atol=1e-3)


@torch.no_grad()
def test_no_cache_outlives_its_call(denoiser, monkeypatch):
    made = []
    create = ReferenceCache.__init__

    def watched(self):
        create(self)
        made.append(weakref.ref(self))

    monkeypatch.setattr(ReferenceCache, "__init__", watched)
    batch = random_batch(denoiser.unet, (2,), (0,))
    denoiser(batch.latents, STEP, batch, "cached")
    cache = denoiser.fill_cache(random_batch(denoiser.unet, (2,), (0, 1)))
    assert len(made) == 2
    del cache
    gc.collect()
    assert [reference() for reference in made] == [None, None]


@torch.no_grad()
def test_size_and_clearing(denoiser):
    references = random_batch(denoiser.unet, (2, 1), (0, 1, 2))
    cache = denoiser.fill_cache(references)
    assert cache.set_sizes == (2, 1)
    tokens = {}
    for name, module in denoiser.unet.named_modules():
        if name.endswith("attn1"):
            module.register_forward_hook(
                lambda _m, inputs, out, name=name: tokens.update({name: out.numel()})
            )
    denoiser.fill_cache(references)
    assert cache.nbytes == 2 * 4 * sum(tokens.values())  # keys and values, four bytes each
    view = cache.for_sets([0])
    cache.clear()
    assert cache.nbytes == 0
    target = random_batch(denoiser.unet, (1,))
    with pytest.raises(UsageError, match="empty at layer"):
        denoiser(target.latents, STEP, target, "cached", view)


@torch.no_grad()
def test_what_does_not_fit_is_refused():
    denoiser = UNetBackbone(make_joint(small_sd14_unet()))
    references = random_batch(denoiser.unet, (1, 2), (0, 1, 2))
    cache = denoiser.fill_cache(references)
    with pytest.raises(UsageError, match="no reference set 2; it holds 2"):
        cache.for_sets([0, 2])
    with pytest.raises(UsageError, match="no reference set -1"):
        cache.for_sets([-1])
    with pytest.raises(UsageError, match="already filled"):
        cache.writer((1,))
    with pytest.raises(UsageError, match="at least one picture"):
        ReferenceCache().writer((2, 0))
    large = random_batch(denoiser.unet, (1,), size=16)
    with pytest.raises(UsageError, match="picture size"):
        denoiser(large.latents, STEP, large, "cached", cache.for_sets([0]))
    pair = random_batch(denoiser.unet, (1, 1))
    with pytest.raises(UsageError, match="view is for 1 sets, but the batch has 2"):
        denoiser(pair.latents, STEP, pair, "cached", cache.for_sets([0]))
    empty = ReferenceCache()
    empty.writer((1,))
    with pytest.raises(UsageError, match="empty at layer down_blocks"):
        denoiser(pair.latents, STEP, pair, "cached", empty.for_sets([0, None]))
    unet, view = denoiser.unet, cache.for_sets([0])
    with pytest.raises(UsageError, match="give one of them"):
        unet(
            torch.zeros(1, 9, 8, 8), STEP, pair.text[:1],
            cross_attention_kwargs={"reads": SetReads(cache=view, is_reference=torch.tensor([False]))},
        )  # fmt: skip
