"""What a call is expected to cost, against what it does cost; memory that is not there."""

import resource
from dataclasses import replace
from types import SimpleNamespace

import psutil
import pytest
import torch
from PIL import Image

from jedi_diffusion import JeDiPipeline, costs
from jedi_diffusion.calls import Call, run_call
from jedi_diffusion.errors import JeDiError
from jedi_diffusion.flops import MemoryCounter, networks_of
from jedi_diffusion.options import SizedSampling
from tests.helpers.small_klein import save_klein
from tests.helpers.small_pipelines import save_joint


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> JeDiPipeline:
    pipe = JeDiPipeline.from_pretrained(save_joint(tmp_path_factory.mktemp("models") / "joint"))
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize("slope", [0.0, 2.0])
def test_memory_is_told_for_sizes_and_sets_that_were_not_measured(slope, pipe, monkeypatch) -> None:
    """With and without attention that is as wide as the pairs of tokens."""
    from jedi_diffusion.backbones.unet import install_coupling

    monkeypatch.setattr(costs, "LEAST_SIDE", 192)
    install_coupling(pipe.unet, slope)
    figures = costs.measure(pipe, 32)
    cases = [(160, 3, 2, "joint"), (192, 2, 3, "cached"), (256, 1, 1, "joint")]
    for side, references, targets, coupling in cases:
        how = SizedSampling(height=side, width=side, steps=1, coupling=coupling)
        photo = Image.new("RGB", (side, side), "gray")
        with MemoryCounter(networks_of(pipe)) as memory:
            call = Call(["a robot"] * targets, range(targets), [photo] * references, ["a"], how)
            run_call(pipe, call, lambda *_: None)
        expected = figures.bytes(figures.work(how, targets, references))
        assert memory.peak < expected < 2.5 * memory.peak, (side, references, targets, coupling)


def test_costs_grow_with_pictures_and_with_the_square_of_attention() -> None:
    figures = costs.Costs(costs.Growth(1, 0), costs.Growth(1, 1), costs.Growth(0, 0), "cached")
    joint, cached, alone = (
        figures.work(SizedSampling(height=8, width=8, coupling=coupling), 2, references)
        for coupling, references in (("joint", 3), (None, 3), ("joint", 0))
    )
    assert joint == (16, 64, 16, 64)  # two branches of two sets of four
    assert cached == (6, 16, 9, 64)  # as the model's own; a pass over the references beside
    assert alone == (4, 4, 1, 64)
    assert figures.work(SizedSampling(height=8, width=8), 4, 2, joint_targets=True) == (12, 72, 36, 64)
    assert figures.step_seconds(alone) == 4 * 64 + 4 * 64**2
    assert figures.work(SizedSampling(height=8, width=8, guidance=1.0), 1, 0).pairs == 1


def test_references_of_their_own_size_are_counted_by_it() -> None:
    figures = costs.Costs(costs.Growth(1, 0), costs.Growth(1, 1), costs.Growth(0, 0), "joint", 128)
    how = SizedSampling(height=8, width=8, guidance=1.0)
    assert figures.work(how, 1, 3) == (12, 49, 49, 64)  # as six of 64 pixels; encoded in twelve


def test_a_model_that_reads_references_in_their_own_shape_is_measured_without(tmp_path, monkeypatch) -> None:
    """And what it then takes with some is told."""
    save_klein(tmp_path / "klein")
    pipe = JeDiPipeline.from_pretrained(tmp_path / "klein")
    pipe.set_progress_bar_config(disable=True)
    calls = []
    monkeypatch.setattr(
        costs, "run_call", lambda pipe, call, *rest: calls.append(call) or run_call(pipe, call, *rest)
    )
    monkeypatch.setattr(costs, "LEAST_SIDE", 128)
    figures = costs.measure(pipe, 128)
    assert {len(call.references) for call in calls} == {0}
    assert figures.reference_pixels == 1024**2
    how, photos = SizedSampling(height=64, width=64, steps=1), [Image.new("RGB", (128, 64))] * 4
    with MemoryCounter(networks_of(pipe)) as memory:
        run_call(pipe, Call(["a dog"], [0], photos, [], how), lambda *_: None)
    expected = replace(figures, reference_pixels=128 * 64)
    assert memory.peak < expected.bytes(expected.work(how, 1, 4))


def test_steps_without_guidance_cost_one_branch() -> None:
    figures = costs.Costs(costs.Growth(1, 0), costs.Growth(1, 1), costs.Growth(1, 0), "cached")
    how = {"height": 8, "width": 8, "coupling": "joint", "steps": 10}
    pixels, own, guided = 64, 2 * 64 + 4 * 64**2, 4 * 64 + 8 * 64**2
    whole = figures.seconds(SizedSampling(**how), 1, 1)
    part = figures.seconds(SizedSampling(**how, guidance_start=0.2, guidance_stop=0.6), 1, 1)
    never = SizedSampling(**how, guidance_start=0.5, guidance_stop=0.5)
    assert whole == 10 * guided + 4 * pixels
    assert part == 4 * guided + 6 * own + 4 * pixels
    assert figures.seconds(never, 1, 1) == 10 * own + 2 * pixels
    assert figures.work(never, 1, 1).rows == 2
    staged = SizedSampling(**how, guidance_mode="text_first", image_guidance=2.0, guidance_stop=0.1)
    assert figures.work(staged, 1, 1).rows == 6


SIZES = [(8_192, 1.7e7), (73_728, 1.36e9), (294_912, 2.17e10)]
"""Pixels of the rows, and squares of the pairs' pixels, of two pictures of 64, 192 and 384."""


@pytest.mark.parametrize(
    "growth",
    [(1e-6, 1e-11, 0.02), (1e-6, 0.0, 0.0), (0.0, 1e-11, 0.0), (0.0, 0.0, 0.5), (2e-6, 0.0, 0.1)],
)
def test_growth_is_found_from_what_it_costs(growth) -> None:
    points = [(x, y, growth[0] * x + growth[1] * y + growth[2]) for x, y in SIZES]
    assert costs._fitted(points) == pytest.approx(growth, rel=1e-6, abs=1e-15)


def test_no_part_of_growth_is_negative_and_small_costs_count_as_much_as_large_ones() -> None:
    shrinking = costs._fitted([(1, 1, 1.0), (4, 16, 0.5), (16, 256, 0.25)])
    assert (shrinking.linear, shrinking.square) == (0, 0)
    assert shrinking.constant == pytest.approx((1 + 2 + 4) / (1 + 4 + 16))  # least sum of (c / cost - 1)^2
    steep = costs._fitted([(1, 1, 0.1), (4, 16, 16.0), (16, 256, 4096.0)])
    assert min(steep) >= 0
    assert steep.at(1, 1, 1) == pytest.approx(0.1, rel=0.5)


def test_the_fastest_of_several_runs_counts_and_slow_models_run_once() -> None:
    def tried(*times: tuple[float, float]) -> tuple[costs.Times, int]:
        left = iter([costs.Times(*each) for each in times])
        found = costs._fastest(left.__next__, next(left))
        return found, len([*left])

    busy = (0.03, 0.02), (0.01, 0.09), (0.02, 0.01), (0.05, 0.05), (0.04, 0.04), (0.001, 0.001)
    assert tried(*busy) == ((0.01, 0.01), 1)  # each least on its own; five runs at most
    assert tried((0.7, 0.4), (0.1, 0.1)) == ((0.7, 0.4), 1)
    assert tried((0.5, 0.4), (0.3, 0.6), (0.1, 0.1)) == ((0.3, 0.4), 1)


def test_time_in_which_others_had_the_processors_does_not_count() -> None:
    begin, waited, threads = costs.Moment(10, 5), costs.Moment(13, 6), costs.Moment(11, 8)
    assert costs._seconds_alone(begin, waited, is_processor=True) == 1
    assert costs._seconds_alone(begin, threads, is_processor=True) == 1
    assert costs._seconds_alone(begin, waited, is_processor=False) == 3  # a processor waits for its card


def test_steps_are_told_from_what_a_call_does_once(pipe, monkeypatch) -> None:
    """Decoding takes 5 s here and a step 2 s; others have the processor half the time."""
    clock = [0.0]

    def work(seconds: float) -> None:
        clock[0] += 2 * seconds

    clocks = SimpleNamespace(perf_counter=lambda: clock[0], process_time=lambda: clock[0] / 2)
    monkeypatch.setattr(costs, "time", clocks)
    decode, forward = pipe.decode_latents, pipe.network.forward
    monkeypatch.setattr(pipe, "decode_latents", lambda *given: (work(5), decode(*given))[1])
    monkeypatch.setattr(pipe.network, "forward", lambda *a, **k: (work(2), forward(*a, **k))[1])
    figures = costs.measure(pipe, 32)
    how = SizedSampling(height=64, width=64, steps=10, guidance=1.0)
    assert figures.step == pytest.approx((0, 0, 2))
    assert figures.seconds(how, 1, 0) == pytest.approx(10 * 2 + 5)


def test_free_memory_heeds_limits_of_container_and_process(tmp_path, monkeypatch) -> None:
    device = torch.device("cpu")
    machine = costs.free_memory(device)
    assert 0 < machine <= psutil.virtual_memory().total
    files = tmp_path / "limit", tmp_path / "use"
    monkeypatch.setattr(costs, "CGROUPS", (files,))
    for limit, expected in (("max", machine), ("5000000", 3000000)):
        files[0].write_text(f"{limit}\n")
        files[1].write_text("2000000\n")
        assert costs.free_memory(device) == pytest.approx(expected, rel=0.2)
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (1000, 1000))
    assert costs.free_memory(device) == 0


@pytest.mark.parametrize(
    "error",
    [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), None],
    ids=["python", "card", "cpu"],
)
def test_memory_that_runs_out_is_a_sentence(error, pipe, monkeypatch) -> None:
    def fail(*_: object, **__: object) -> None:
        if error is not None:
            raise error
        torch.empty(2**60, dtype=torch.uint8)

    monkeypatch.setattr(JeDiPipeline, "__call__", fail)
    with pytest.raises(JeDiError, match="not enough memory for 2 pictures of 16x8 pixels"):
        run_call(pipe, Call(["a", "b"], [0, 1], [], [], SizedSampling(height=8, width=16)), lambda *_: None)


def test_other_errors_of_torch_are_not_called_memory(pipe, monkeypatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("sizes do not match")

    monkeypatch.setattr(JeDiPipeline, "__call__", fail)
    with pytest.raises(RuntimeError, match="sizes"):
        run_call(pipe, Call(["a"], [0], [], [], SizedSampling(height=8, width=8)), lambda *_: None)
