"""The scale of the scores on answers that are known, their intervals, and the pairs."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from jedi_diffusion.errors import UsageError
from jedi_diffusion.estimates import bootstrap_means, normalised, share
from jedi_diffusion.personalizer import Personalizer
from jedi_toybox import world
from jedi_toybox.encoders import FIELDS, Encoders, Reading, ScorerNetwork
from jedi_toybox.score import (
    COPY_SIDE,
    MAX_REFERENCES,
    NEXT_SEED,
    Benchmark,
    draw_pair,
    picture_distance,
    score_sheet,
    to_picture,
)

PAIRS, SIZE = 40, 32


class CodeReader(Encoders):
    """Reads synthetic pictures: their first pixel row spells subject, scene, style and attribute exactly."""

    def __init__(self) -> None:
        super().__init__(ScorerNetwork())

    def read(self, pictures: Tensor) -> Reading:
        code = pictures[:, :, 0, :8].long()
        identity = torch.nn.functional.normalize(code[:, 0].float() - 127.5, dim=1)
        fields = {
            name: torch.nn.functional.one_hot(code[:, 1, place] % len(options), len(options)).float() * 50
            for place, (name, options) in enumerate(FIELDS.items())
        }
        return Reading(identity, fields, torch.zeros(len(pictures), 1, 8, 8))


def spell(spec: world.PictureSpec) -> Tensor:
    """A synthetic picture of the spec for `CodeReader`: noise of its own, its code in the first row."""
    noise = np.random.default_rng([spec.subject.seed, spec.seed, world.SCENES.index(spec.scene)])
    picture = torch.from_numpy(noise.integers(0, 256, (3, SIZE, SIZE), dtype=np.uint8))
    look = np.random.default_rng(spec.subject.seed).integers(0, 256, 8)
    picture[0, 0, :8] = torch.from_numpy(look)
    for place, (name, options) in enumerate(FIELDS.items()):
        picture[1, 0, place] = options.index(getattr(spec, name))
    return picture


@pytest.fixture(scope="module")
def benchmark() -> Benchmark:
    pairs = [draw_pair(number, references=2) for number in range(PAIRS)]
    single = {
        name: torch.stack([spell(getattr(pair, name)) for pair in pairs])
        for name in ("truth", "again", "other", "another", "wrong")
    }
    several = {
        name: torch.stack([torch.stack([spell(spec) for spec in getattr(pair, name)]) for pair in pairs])
        for name in ("references", "gallery")
    }
    return Benchmark(pairs, CodeReader(), **several, **single)


def test_known_answers_get_their_scores(benchmark: Benchmark) -> None:
    scores = benchmark.baselines()
    assert scores["true render"].identity.mean == pytest.approx(1, abs=1e-6)
    assert scores["true render"].prompt.mean == pytest.approx(1, abs=1e-6)
    assert scores["true render"].copy.mean == 0
    assert scores["true render"].diversity == pytest.approx((1, 1, 1))
    assert scores["copy of the reference"].diversity == (0, 0, 0)
    assert scores["true render as a blob"].diversity is None
    other = scores["another subject"]
    assert other.identity.low <= 0 <= other.identity.high
    assert other.prompt.mean == pytest.approx(1, abs=1e-6)
    copy = scores["copy of the reference"]
    assert copy.copy.mean == 1
    assert copy.identity.mean == pytest.approx(1, abs=1e-6)
    assert copy.prompt.mean == pytest.approx(0, abs=1e-6)


def test_a_mixture_scores_in_between(benchmark: Benchmark) -> None:
    """Every second answer is right, every second shows a wrong scene."""
    half = (torch.arange(PAIRS) % 2 == 0).view(-1, 1, 1, 1)
    scores = benchmark.score(torch.where(half, benchmark.again, benchmark.wrong))
    gain = [(1 + bool(pair.truth.style) + bool(pair.truth.attribute)) for pair in benchmark.pairs]
    assert scores.prompt.mean == pytest.approx(sum(gain[::2]) / sum(gain), abs=1e-6)
    assert scores.prompt.low < scores.prompt.mean < scores.prompt.high
    assert scores.identity.mean == pytest.approx(1, abs=1e-6)


def test_a_personalizer_gets_references_names_prompts_and_a_seed_each(benchmark: Benchmark) -> None:
    seen = []

    def copier(
        references: Sequence[Image.Image], names: Sequence[str], prompts: Sequence[str], seeds: Sequence[int]
    ) -> list[Image.Image]:
        seen.append((len(references), names[0], prompts[0], seeds[0]))
        return [references[1]]

    outputs = benchmark.run(copier, seed=7)
    assert torch.equal(outputs, benchmark.references[:, 1])
    assert benchmark.score(outputs).copy.mean == 1
    pair = benchmark.pairs[3]
    assert seen[3] == (2, pair.truth.subject.phrase, pair.truth.caption, 10)


def constant(benchmark: Benchmark, answers: Callable[[int, int, int], Tensor]) -> Personalizer:
    """Answers with a picture by pair, seed and number of references."""
    numbers = {pair.prompt + str(pair.truth.subject.seed): n for n, pair in enumerate(benchmark.pairs)}
    calls = iter(range(10**6))

    def personalizer(
        references: Sequence[Image.Image], names: Sequence[str], prompts: Sequence[str], seeds: Sequence[int]
    ) -> list[Image.Image]:
        return [to_picture(answers(next(calls) % len(numbers), seeds[0], len(references)))]

    return personalizer


def test_diversity_is_the_distance_between_seeds_in_that_of_true_pictures(benchmark: Benchmark) -> None:
    """Seeds that give the truth and a true picture beside it in turn: 2 of 3 pairs of pictures differ."""
    either = torch.stack([benchmark.truth, benchmark.again])
    alternating = constant(benchmark, lambda pair, seed, _: either[seed // NEXT_SEED % 2, pair])
    first, more = benchmark.run(alternating), benchmark.run_again(alternating, seeds=3)
    assert more.shape == (PAIRS, 2, 3, SIZE, SIZE)
    assert benchmark.score(first, more).diversity == pytest.approx((2 / 3,) * 3, abs=0.01)
    assert benchmark.score(first, more[:, 1:]).diversity == (0, 0, 0)
    assert benchmark.score(first).diversity is None


def test_identity_over_references_shows_what_more_of_them_cost(benchmark: Benchmark) -> None:
    """A personalizer that is right with one reference, and blends another subject in with two views."""
    seen = []

    def answer(pair: int, seed: int, references: int) -> Tensor:
        seen.append((seed, references))
        return benchmark.again[pair] if references == 1 else benchmark.another[pair]

    rows = benchmark.over_references(constant(benchmark, answer), *[benchmark.references] * 2, seed=5)
    assert list(rows) == ["1", "2 of 2 views", "2 of one view"]
    assert rows["1"].scores.identity.mean == pytest.approx(1, abs=1e-6)
    assert rows["1"].gain == (0, 0, 0)
    worse = rows["2 of 2 views"]
    assert worse.gain.mean == pytest.approx(worse.scores.identity.mean - 1, abs=1e-6)
    assert worse.gain.high < -0.5
    assert seen[::PAIRS] == [(5, 1), (5, 2), (5, 2)]


def test_references_of_one_view_share_their_camera_and_nothing_else() -> None:
    apart, alike = draw_pair(3, 3), draw_pair(3, 3, alike=True)
    cameras = [{str(spec.camera) for spec in pair.references} for pair in (apart, alike)]
    assert [len(each) for each in cameras] == [3, 1]
    assert [spec.scene for spec in alike.references] == [spec.scene for spec in apart.references]
    assert alike._replace(references=[]) == apart._replace(references=[])


def test_scoring_refuses_another_number_of_pictures(benchmark: Benchmark) -> None:
    with pytest.raises(UsageError, match="39 pictures"):
        benchmark.score(benchmark.truth[1:])


def test_sheet_shows_references_outputs_and_truth(benchmark: Benchmark) -> None:
    sheet = score_sheet(benchmark, benchmark.again, "title", pairs=4)
    assert sheet.width > 8 * SIZE
    assert sheet.height > 2 * SIZE


@pytest.mark.parametrize("classes", ["known", "held_out"])
def test_pairs_keep_their_promises(classes: str) -> None:
    seeds: set[tuple[str, int]] = set()
    for number in range(60):
        pair = draw_pair(number, 3, seed=1, classes=classes)  # type: ignore[arg-type]
        subject = pair.truth.subject
        assert subject.split == ("held_out" if classes == "known" else "held_out_classes")
        own = [*pair.references, *pair.gallery, pair.again, pair.wrong]
        assert all(spec.subject == subject for spec in own)
        assert pair.other.subject.noun == pair.another.subject.noun == subject.noun
        people = {subject.seed, pair.other.subject.seed, pair.another.subject.seed}
        assert len(people) == 3
        seeds |= {(subject.split, seed) for seed in people}
        for spec in (pair.again, pair.other, pair.another):
            assert (spec.scene, spec.style, spec.attribute) == (
                pair.truth.scene,
                pair.truth.style,
                pair.truth.attribute,
            )
        scenes = [spec.scene for spec in (pair.truth, pair.wrong, *pair.references, *pair.gallery)]
        assert len(set(scenes)) == len(scenes)
        assert all(
            spec.style == spec.attribute == "" for spec in (pair.wrong, *pair.references, *pair.gallery)
        )
        keys = [(spec.subject.seed, spec.seed) for spec in (pair.truth, *own)]
        assert len(set(keys)) == len(keys)
    assert len(seeds) == 180  # no subject serves two pairs


def test_fewer_references_are_the_first_of_more() -> None:
    one, three = draw_pair(5, 1), draw_pair(5, MAX_REFERENCES)
    assert one.references == three.references[:1]
    assert one._replace(references=[]) == three._replace(references=[])
    with pytest.raises(UsageError):
        draw_pair(0, MAX_REFERENCES + 1)


def test_bootstrap_agrees_with_the_standard_error() -> None:
    values = np.random.default_rng(0).gamma(2.0, size=(1, 400))
    means = bootstrap_means(values)
    assert means.shape == (1, 4000)
    assert means.mean() == pytest.approx(values.mean(), abs=0.01)
    assert means.std() == pytest.approx(values.std() / np.sqrt(400), rel=0.05)


def test_normalised_interval_agrees_with_the_delta_method() -> None:
    rng = np.random.default_rng(1)
    floor, ceiling = rng.normal(0.2, 0.1, 300), rng.normal(0.9, 0.1, 300)
    values = 0.6 * ceiling + 0.4 * floor + rng.normal(0, 0.05, 300)
    found = normalised(values, floor, ceiling)
    ratio = (values - floor).mean() / (ceiling - floor).mean()
    # Var(mean(a)/mean(b)) ~ Var(a - r b) / (n mean(b)^2)
    rest = (values - floor) - ratio * (ceiling - floor)
    error = rest.std() / np.sqrt(300) / (ceiling - floor).mean()
    assert found.mean == pytest.approx(ratio)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.08)


def test_normalised_is_zero_at_the_floor_and_one_at_the_ceiling() -> None:
    floor, ceiling = np.arange(10.0), np.arange(10.0) * 2 + 3
    assert normalised(floor, floor, ceiling) == pytest.approx((0, 0, 0))
    assert normalised(ceiling, floor, ceiling) == pytest.approx((1, 1, 1))


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"), [(0, 200, 0.0, 0.01885), (10, 200, 0.02738, 0.08958)]
)
def test_share_has_wilsons_interval(hits: int, count: int, low: float, high: float) -> None:
    """Against published tables of the score interval (0/200: z^2 / (n + z^2))."""
    found = share(np.arange(count) < hits)
    assert found == pytest.approx((hits / count, low, high), abs=2e-5)


def test_distance_is_zero_for_a_moved_copy_and_symmetric_in_size() -> None:
    random = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 256, (3, 3, COPY_SIDE, COPY_SIDE), generator=random, dtype=torch.uint8)
    moved = coarse.roll((1, -2), (2, 3))
    assert picture_distance(moved, coarse).max() < 1e-6
    assert picture_distance(coarse.roll(4, 2), coarse).min() > 0.2
    larger = coarse.repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert picture_distance(larger, larger).max() < 1e-6


def test_distance_without_a_better_shift_is_the_root_mean_square() -> None:
    flat = torch.full((1, 3, 64, 64), 100, dtype=torch.uint8)
    assert picture_distance(flat, flat + 51).item() == pytest.approx(0.2, abs=1e-6)


def test_rendered_benchmark_holds_the_specs_pictures() -> None:
    pairs = [draw_pair(number, 1) for number in range(2)]
    benchmark = Benchmark.render(pairs, CodeReader(), 16)
    assert benchmark.references.shape == (2, 1, 3, 16, 16)
    assert benchmark.gallery.shape == (2, 3, 3, 16, 16)
    expected = world.render([pairs[1].wrong], 16, 2).pictures[0]
    assert torch.equal(benchmark.wrong[1], expected)
    assert to_picture(expected).getpixel((3, 5)) == tuple(expected[:, 5, 3].tolist())
