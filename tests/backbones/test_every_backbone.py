"""What every backbone keeps, whatever its family: what it says of itself, sets, couplings, cache, record."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Any, NamedTuple

import pytest
import torch
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry
from torch import Tensor, nn

from jedi_diffusion.backbones import FAMILIES, family_of
from jedi_diffusion.backbones.base import Backbone
from jedi_diffusion.backbones.flux import FluxBackbone
from jedi_diffusion.backbones.flux2 import Flux2Backbone
from jedi_diffusion.backbones.sd3 import SD3Backbone
from jedi_diffusion.backbones.sequences import SequenceLayout, image_indices
from jedi_diffusion.backbones.unet import UNetBackbone
from jedi_diffusion.errors import JeDiError, ModelError, UsageError
from jedi_diffusion.joint.attention import SetReads
from jedi_diffusion.joint.record import AttentionRecord
from jedi_diffusion.options import Sampling
from jedi_diffusion.sets import SetBatch
from jedi_diffusion.visibility import Visibility
from tests.helpers.small_flux2 import flux2_batch, tiny_transformer
from tests.helpers.small_mmdit import SD35_MEDIUM, mmdit_batch, tiny_flux, tiny_sd3
from tests.helpers.small_models import SLOPE, random_batch, randomize_new_channels, tiny_sdxl_unet, tiny_unet

SIZES, REFERENCES = (3, 1, 4, 2), (0, 2, 4, 5, 6, 8)
"""Ragged sets: a target among references, a lone target, a lone reference last, one and one."""


@dataclass(frozen=True)
class Family:
    """A small network of a family, the sets that it reads, and how far its times reach."""

    stock: Callable[[], nn.Module]
    kind: type[Backbone]
    batch: Callable[[Sequence[int], Sequence[int]], SetBatch]
    times: float = 1.0
    clean_references: bool | None = None
    slope: float | None = None
    idle: str = "$^"

    def build(self) -> Backbone:
        network = self.stock()
        self.kind.make_joint(network)
        self.kind.couple(network, self.slope)
        if self.kind is UNetBackbone:
            randomize_new_channels(network)  # else what they show would not matter
        backbone = self.kind(network)
        if self.clean_references is not None:
            backbone.clean_references = self.clean_references
        return backbone


def unet_sets(stock: Callable[[], nn.Module]) -> Callable[[Sequence[int], Sequence[int]], SetBatch]:
    return lambda sizes, references: random_batch(stock(), sizes, references)


def sets_of(
    batch: Callable[..., SetBatch], extents: Sequence[tuple[int, int]] = ()
) -> Callable[[Sequence[int], Sequence[int]], SetBatch]:
    """Sets whose images have these sizes in turn, where the family reads images of their own sizes."""

    def build(sizes: Sequence[int], references: Sequence[int]) -> SetBatch:
        own = [each for each, _ in zip(cycle(extents), range(sum(sizes)), strict=False)] or None
        return batch(tuple(sizes), tuple(references), own)

    return build


# The last block of SD3 has captions that only answer, so nothing comes of what they ask.
SD3_IDLE = r"2\.attn\.(add_q_proj|norm_added_q)"
EVERY = {
    "sd14": Family(tiny_unet, UNetBackbone, unet_sets(tiny_unet), 999),
    "sd14-near": Family(tiny_unet, UNetBackbone, unet_sets(tiny_unet), 999, slope=SLOPE),
    "sdxl": Family(tiny_sdxl_unet, UNetBackbone, unet_sets(tiny_sdxl_unet), 999),
    "klein": Family(tiny_transformer, Flux2Backbone, sets_of(flux2_batch, [(4, 6), (3, 5), (2, 7)])),
    "kontext": Family(tiny_flux, FluxBackbone, sets_of(mmdit_batch, [(6, 8), (4, 10), (2, 6)])),
    "flux": Family(tiny_flux, FluxBackbone, sets_of(mmdit_batch), clean_references=False),
    "sd3": Family(tiny_sd3, SD3Backbone, sets_of(mmdit_batch), idle=SD3_IDLE),
    "sd3.5": Family(lambda: tiny_sd3(**SD35_MEDIUM), SD3Backbone, sets_of(mmdit_batch), idle=SD3_IDLE),
}
coupling = pytest.mark.parametrize("coupling", ["joint", "cached"])


@pytest.fixture(params=EVERY.values(), ids=EVERY)
def family(request: pytest.FixtureRequest) -> Family:
    return request.param


def noise_like(latents: Tensor) -> Tensor:
    return torch.randn(latents.shape, generator=torch.Generator().manual_seed(1))


def close(got: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(got, want, atol=1e-5, rtol=0)


def test_every_family_is_here() -> None:
    known = {name.rpartition(".")[2] for name in FAMILIES.values()}
    assert known == {each.kind.__name__ for each in EVERY.values()}


def test_it_says_what_it_is(family: Family) -> None:
    backbone = family.build()
    assert family_of(backbone.network) is family.kind
    assert backbone.is_coupled(backbone.network)
    assert backbone.distance_slope == (family.slope or 0)
    assert all(isinstance(backbone.own_sampling(distilled), Sampling) for distilled in (False, True))
    assert backbone.size_multiple >= 1
    assert backbone.text_tokens >= 1
    sides = backbone.latent_size
    assert all(side is None or side % backbone.size_multiple == 0 for side in sides)


def test_adapters_and_shards_lie_on_parts_that_exist(family: Family) -> None:
    backbone = family.build()
    modules = dict(backbone.network.named_modules())
    targets = [name for name in modules if re.fullmatch(backbone.lora_targets, name)]
    assert targets
    assert all(isinstance(modules[name], nn.Linear | nn.Conv2d) for name in targets)
    assert backbone.lora_ranks.keys() <= set(targets)
    assert all(any(isinstance(each, unit) for each in modules.values()) for unit in backbone.shard_units)
    assert backbone.shard_units


@torch.no_grad()
def test_it_runs_on_its_own_example(family: Family) -> None:
    backbone, like = family.build(), family.batch((2,), ())
    height, width = like.latents.shape[2:]
    sizes = backbone.size_conditions(2, 8 * height, 8 * width, "cpu")
    conditions = backbone.example_conditions(2, 5) | sizes
    assert {len(value) for value in conditions.values()} == {2}
    assert conditions["text"].shape[1] == 5
    latents = torch.zeros(2, backbone.latent_channels, height, width)
    batch = SetBatch(latents, torch.ones(2, 1, 1, 1), conditions, (2,))
    for dtype in (torch.float32, torch.bfloat16):
        made = backbone(latents.to(dtype), torch.tensor(0.5 * family.times), batch)
        assert (made.shape, made.dtype) == (latents.shape, dtype)


def test_a_network_that_is_not_joint_is_refused(family: Family) -> None:
    network = family.stock()
    assert not family.kind.is_coupled(network)
    with pytest.raises(ModelError, match=r"(make_joint|couple)"):
        family.kind(network)


def test_a_fresh_network_has_the_same_weights_by_name_and_shape(family: Family) -> None:
    network = family.build().network
    fresh = family.kind.fresh(network)
    assert family.kind.is_coupled(fresh)
    assert family.kind(fresh).distance_slope == (family.slope or 0)
    shapes = [{name: each.shape for name, each in of.state_dict().items()} for of in (network, fresh)]
    assert shapes[0] == shapes[1]


@torch.no_grad()
@coupling
def test_sets_in_one_batch_equal_sets_one_by_one(family: Family, coupling: str) -> None:
    backbone, batch = family.build(), family.batch(SIZES, REFERENCES)
    noisy, sizes = noise_like(batch.latents), torch.tensor(SIZES)
    times = (torch.linspace(0.1, 0.9, len(SIZES)) * family.times).round(decimals=1).repeat_interleave(sizes)
    together, start = backbone(noisy, times, batch, coupling), 0
    assert together.shape == noisy.shape
    for size in SIZES:
        rows = list(range(start, start + size))
        close(together[rows], backbone(noisy[rows], times[rows], batch.select(rows, (size,)), coupling))
        start += size


@torch.no_grad()
@coupling
def test_permuting_a_set_permutes_the_output(family: Family, coupling: str) -> None:
    """With the indices by which some families tell images apart, and captions of their own for references."""
    backbone, order = family.build(), [3, 1, 4, 0, 2]
    batch = family.batch((5,), (0, 1))
    indices = torch.tensor(image_indices(batch.is_reference.tolist()))
    batch = batch.conditioned({"index": indices, "captioned": torch.tensor([False, True, True, True, True])})
    noisy, time = noise_like(batch.latents), torch.tensor(0.7 * family.times)
    want = backbone(noisy, time, batch, coupling)
    close(backbone(noisy[order], time, batch.select(order, (5,)), coupling), want[order])


@torch.no_grad()
@coupling
def test_a_target_reads_its_references_and_its_text(family: Family, coupling: str) -> None:
    backbone, batch = family.build(), family.batch((2,), (0,))
    noisy, time = noise_like(batch.latents), torch.tensor(0.7 * family.times)
    before = backbone(noisy, time, batch, coupling)[1]
    text = batch.text.clone()
    text[1] += 1
    others = family.batch((2,), (0,))
    others.latents[0] += 1
    noisier = noisy.clone()
    noisier[0] += 1  # what a noised reference shows
    assert not torch.allclose(backbone(noisy, time, batch.conditioned({"text": text}), coupling)[1], before)
    assert not torch.allclose(backbone(noisier, time, others, coupling)[1], before)


@torch.no_grad()
def test_a_filled_cache_gives_what_one_pass_gives(family: Family) -> None:
    """References depend on references alone, so one subject in a cache does not touch another."""
    backbone, batch = family.build(), family.batch((3, 2), (0, 1, 3))
    noisy, time = noise_like(batch.latents), torch.tensor(0.7 * family.times)
    want = backbone(noisy, time, batch, "cached")[[2, 4]]
    targets = batch.select([2, 4], (1, 1))
    cache = backbone.fill_cache(batch.select([0, 1, 3], (2, 1)))
    assert cache.set_sizes == (2, 1)
    assert cache.nbytes > 0
    close(backbone(noisy[[2, 4]], time, targets, "cached", cache.for_sets([0, 1])), want)
    swapped = backbone(noisy[[4, 2]], time, batch.select([4, 2], (1, 1)), "cached", cache.for_sets([1, 0]))
    close(swapped, want[[1, 0]])
    alone = backbone.fill_cache(batch.select([3], (1,)))
    own = batch.select([4], (1,))
    close(backbone(noisy[[4]], time, own, "cached", alone.for_sets([0])), want[1:])
    without = backbone(noisy[[4]], time, own, "cached", alone.for_sets([None]))
    close(without, backbone(noisy[[4]], time, own))
    view = alone.for_sets([0])
    alone.clear()
    with pytest.raises(UsageError, match="empty"):
        backbone(noisy[[4]], time, own, "cached", view)


@coupling
def test_gradients_reach_every_weight_that_can_matter(family: Family, coupling: str) -> None:
    backbone = family.build().double().train()
    backbone.network.enable_gradient_checkpointing()
    batch = family.batch((3, 2), (0, 3)).to(torch.float64)
    if "extent" in batch.conditions:
        batch.conditions["extent"] = batch.conditions["extent"].long()
    noisy, time = noise_like(batch.latents).double(), torch.tensor(0.7 * family.times)
    backbone(noisy, time, batch, coupling)[~batch.is_reference].square().mean().backward()
    weights = dict(backbone.named_parameters())
    still = [name for name, weight in weights.items() if weight.grad is None or not weight.grad.any()]
    assert not [name for name in still if not re.search(family.idle, name)]


@torch.no_grad()
@coupling
def test_every_coupled_layer_runs_on_the_backend_that_diffusers_is_told(
    family: Family, coupling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where only parts of references are read, and after the attention is coupled again."""
    chosen, calls = AttentionBackendName._NATIVE_MATH, list[int]()
    real = _AttentionBackendRegistry._backends[chosen]

    def counted(**given: Tensor) -> Tensor:
        calls.append(len(given["query"]))
        return real(**given)

    monkeypatch.setitem(_AttentionBackendRegistry._backends, chosen, counted)
    monkeypatch.setattr(_AttentionBackendRegistry, "_active_backend", AttentionBackendName.NATIVE)
    backbone, batch = family.build(), family.batch((2,), (0,))
    noisy, time = noise_like(batch.latents), torch.tensor(0.5 * family.times)
    mask = torch.ones(8, 8)
    mask[:4] = 0
    for sets in (batch, replace(batch, visibility=(Visibility(mask), None))):
        plain = backbone(noisy, time, sets, coupling)
        assert not calls
        backbone.network.set_attention_backend(chosen.value)  # the default of other networks too
        family.kind.couple(backbone.network, family.slope)
        close(backbone(noisy, time, sets, coupling), plain)
        assert len(calls) >= len(backbone.attention_layers)
        calls.clear()
        backbone.network.reset_attention_backend()
        _AttentionBackendRegistry.set_active_backend(AttentionBackendName.NATIVE)


@torch.no_grad()
def test_attention_is_recorded_without_a_trace(family: Family) -> None:
    backbone, batch = family.build(), family.batch((3,), (0, 1))
    noisy, time = noise_like(batch.latents), torch.tensor(0.7 * family.times)
    plain, record = backbone(noisy, time, batch), AttentionRecord((0.5, 0.5))
    writer = record.writer(0, [2], tuple(noisy.shape[2:]))
    assert torch.equal(backbone(noisy, time, batch, attention_record=writer), plain)
    for each in record.maps():
        assert each.weights.shape[1] == 3
        given = each.weights.sum(dim=(1, 2, 3))
        if family.kind is UNetBackbone:
            close(given, torch.ones(len(each.tokens)))
        assert ((given > 0) & (given < 1 + 1e-5)).all()  # captions have a part in the other families


class Seen(NamedTuple):
    """What a layer computes with: for every image queries (L, H, D) and keys, and keys of captions."""

    queries: list[Tensor]
    keys: list[Tensor]
    captions: list[Tensor]


def seen_at_layers(monkeypatch: pytest.MonkeyPatch) -> dict[str, Seen]:
    """Of the latest pass of one set, by layer; images are in the order of a sequence where there is one."""
    found: dict[str, Seen] = {}
    of_rows, of_sequence = SetReads.attend, SequenceLayout.attend

    def rows(self: SetReads, layer: str, query: Tensor, key: Tensor, *rest: Any, **more: Any) -> Tensor:
        private = more.get("private")
        text = [] if private is None else list(private[0])
        found[layer] = Seen([each[: key.shape[1]] for each in query], list(key), text)
        return of_rows(self, layer, query, key, *rest, **more)

    def sequence(
        self: SequenceLayout, layer: str, query: Tensor, key: Tensor, *rest: Any, **more: Any
    ) -> Tensor:
        queries, keys = (list(each[0].split(self._lengths)) for each in (query, key))
        first = len(self.captioned)
        found[layer] = Seen(queries[first:], keys[first:], keys[:first])
        return of_sequence(self, layer, query, key, *rest, **more)

    monkeypatch.setattr(SetReads, "attend", rows)
    monkeypatch.setattr(SequenceLayout, "attend", sequence)
    return found


@torch.no_grad()
@pytest.mark.parametrize("name", ["klein", "kontext", "flux", "sd3", "sd3.5"])
@coupling
def test_maps_are_the_means_of_dense_attention(
    name: str, coupling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A set of two references of their own sizes, half of the first hidden, and a target."""
    family = EVERY[name]
    backbone, batch = family.build(), family.batch((3,), (0, 1))
    hidden, extents = torch.ones(8, 8), batch.extents
    hidden[4:] = 0
    batch = replace(batch, visibility=(Visibility(hidden, 2.0), None, None))
    noisy, time = noise_like(batch.latents), torch.tensor(0.7 * family.times)
    record, layers = AttentionRecord((0.3, 0.6)), seen_at_layers(monkeypatch)
    sizes = tuple(noisy.shape[2:])
    references = {}
    if coupling == "joint":
        backbone(noisy, time, batch, attention_record=record.writer(0, [2], sizes))
    else:
        view = backbone.fill_cache(batch.select([0, 1], (2,))).for_sets([0])
        references = dict(layers)
        target = batch.select([2], (1,))
        backbone(noisy[[2]], time, target, coupling, view, record.writer(0, [0], sizes))
    (found,) = record.maps()
    assert found.layers == len(backbone.attention_layers)
    grids = [each if name == "klein" else (each[0] // 2, each[1] // 2) for each in extents]
    assert [found.size_of(number) for number in range(3)] == grids
    want = torch.zeros(len(found.tokens), sum(height * width for height, width in grids))
    for layer, seen in layers.items():
        target_first = not name.startswith("sd3")  # of sequences
        keys, queries = seen.keys, seen.queries[0 if target_first else -1]
        if coupling == "cached":
            keys = [*references[layer].keys, *keys]
        elif target_first:
            keys = [*keys[1:], keys[0]]
        text = seen.captions[0 if target_first else -1] if seen.captions else queries[:0]
        shown = torch.nn.functional.interpolate(hidden[None, None], grids[0], mode="area").flatten() >= 0.5
        added = torch.where(shown, math.log(2), -math.inf)
        every = torch.cat([*keys, text])
        scores = torch.einsum("qhd,khd->hqk", queries[list(found.tokens)], every) / queries.shape[-1] ** 0.5
        scores[..., : len(added)] += added
        want += scores.softmax(-1).mean(0)[:, : want.shape[1]] / found.layers
    got = torch.cat([found.weights_of(number).flatten(1) for number in range(3)], dim=1)
    close(got, want)


@torch.no_grad()
def test_what_does_not_go_together_is_refused_in_a_sentence(family: Family) -> None:
    backbone, batch = family.build(), family.batch((2,), (0,))
    noisy, time = noise_like(batch.latents), torch.tensor(0.5 * family.times)
    references, target = batch.select([0], (1,)), batch.select([1], (1,))
    view = backbone.fill_cache(references).for_sets([0])
    writer = AttentionRecord((0.5, 0.5)).writer(0, [1], tuple(noisy.shape[2:]))
    wrong: list[Callable[[], object]] = [
        lambda: backbone(noisy, time, batch, "both"),
        lambda: backbone(noisy[1:], time, target, "joint", view),
        lambda: backbone(noisy, time, batch, "cached", attention_record=writer),
        lambda: backbone.fill_cache(batch),
    ]
    for call in wrong:
        with pytest.raises(JeDiError) as caught:
            call()
        assert str(caught.value).endswith(".")
