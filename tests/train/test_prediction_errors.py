"""Errors of predictions by noise level, of networks whose answers are known."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from jedi_diffusion.data.source import RenderedSets
from jedi_diffusion.joint import Diffusion, Flow
from jedi_diffusion.pipeline import JeDiPipeline
from jedi_diffusion.sets import SetBatch
from jedi_diffusion.train.pool import LatentPool
from jedi_diffusion.train.prediction_errors import Pairs, prediction_errors
from tests.helpers.small_klein import save_klein

ABAR = torch.tensor([0.9, 0.36, 0.0])
SUBJECTS = 20  # more than one chunk


def pool_of() -> LatentPool:
    """Both pictures of a subject are the same; the left half is the subject."""
    latents = torch.randn(SUBJECTS, 1, 2, 4, 4, generator=torch.Generator().manual_seed(1)).half()
    coverage = torch.zeros(SUBJECTS, 2, 4, 4, dtype=torch.uint8)
    coverage[..., :2] = 255
    tokens = torch.zeros(SUBJECTS, 2, 3, dtype=torch.int16)
    return LatentPool(latents.expand(-1, 2, -1, -1, -1), coverage, tokens, tokens[:, 0], tokens[0, 0])


def text_encoder(tokens: torch.Tensor) -> Any:
    return SimpleNamespace(last_hidden_state=torch.zeros(*tokens.shape, 5))


def copying(noisy: torch.Tensor, timestep: torch.Tensor, batch: SetBatch, coupling: str) -> torch.Tensor:
    """Answers x0: the reference where a set has one, else 0."""
    assert coupling == "cached"
    answer = torch.zeros_like(noisy)
    if batch.set_sizes[0] == 2:
        answer[1::2] = batch.reference_latents[0::2]
        assert timestep[0] == 0
    return answer


def errors(denoiser: Any, kind: str, timesteps: tuple[int, ...] = (0, 1, 2)) -> list[Any]:
    generator = torch.Generator().manual_seed(2)
    pairs = Pairs.of_pool(pool_of(), text_encoder)  # type: ignore[arg-type]
    return prediction_errors(denoiser, pairs, Diffusion(ABAR, kind), timesteps, generator)


def test_a_network_that_copies_is_right_with_its_own_reference_only() -> None:
    subject = pool_of().latents[:, 1, ..., :2].float()
    unit = pool_of().latents[:, 1].float().var(dim=(0, 2, 3)).max()
    for row in errors(copying, "sample"):
        assert row.own == pytest.approx(0, abs=1e-6)
        assert row.none == pytest.approx(float((subject**2).sum(1).mean() / unit), rel=1e-4)
        apart = float(((subject.roll(-1, 0) - subject) ** 2).sum(1).mean() / unit)
        assert row.other == pytest.approx(apart, rel=1e-4)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_predicted_noise_and_velocity_are_turned_into_clean_pictures(kind: str) -> None:
    target = pool_of().latents[:, 1].float()
    noise = torch.randn(target.shape, generator=torch.Generator().manual_seed(2))
    alpha, sigma = ABAR[1].sqrt(), (1 - ABAR[1]).sqrt()
    right = noise if kind == "epsilon" else alpha * noise - sigma * target
    done = iter(list(right.split(16)) * 3)

    def knowing(noisy: torch.Tensor, timestep: torch.Tensor, batch: SetBatch, coupling: str) -> torch.Tensor:
        answer = next(done)
        return answer if batch.set_sizes[0] == 1 else answer.repeat_interleave(2, 0)

    (row,) = errors(knowing, kind, (1,))
    assert (row.own, row.other, row.none) == pytest.approx((0, 0, 0), abs=1e-6)
    assert row.noise == pytest.approx(0.8 / 0.6)


def test_pure_noise_is_told_as_infinite() -> None:
    assert errors(copying, "sample", (2,))[0].noise == float("inf")


@pytest.mark.parametrize("coupling", ["joint", "cached"])
def test_rendered_sets_are_read_as_a_published_transformer_reads_them(tmp_path, coupling) -> None:
    """Clean references without captions; in coupling "joint" at the target's time."""
    save_klein(tmp_path / "klein", is_distilled=False)
    pipe = JeDiPipeline.from_pretrained(tmp_path / "klein", dtype=torch.float32)
    pictures = torch.randint(0, 256, (2, 2, 3, 64, 64), generator=torch.Generator().manual_seed(1))
    masks = torch.zeros(2, 2, 64, 64, dtype=torch.bool)
    masks[..., :32] = True
    sets = RenderedSets(pictures.to(torch.uint8), masks, [["a", "b"], ["c", "d"]], ["e", "f"])
    pairs = Pairs.of_sets(sets, pipe)
    assert pairs.coverage[0, 0, 0].tolist() == [1, 1, 0, 0]
    assert pairs.captions["captioned"].tolist() == [True, True]
    assert pairs.names["captioned"].tolist() == [False, False]
    seen = []

    def oracle(noisy: torch.Tensor, time: torch.Tensor, batch: SetBatch, coupling: str) -> torch.Tensor:
        seen.append((coupling, batch.set_sizes, time.tolist()))
        return torch.zeros_like(noisy)

    rows = prediction_errors(oracle, pairs, Flow(), (0.5,), torch.Generator().manual_seed(2), coupling)
    at = 0.5 if coupling == "joint" else 0.0
    assert seen == [(coupling, (2, 2), [at, 0.5, at, 0.5])] * 2 + [(coupling, (1, 1), [0.5, 0.5])]
    assert rows[0].noise == pytest.approx(1)
    noisy = 0.5 * pairs.target + 0.5 * torch.randn(
        pairs.target.shape, generator=torch.Generator().manual_seed(2)
    )
    off = (noisy - pairs.target)[..., :2].square().sum(1).mean()
    unit = pairs.target.var(dim=(0, 2, 3)).max()
    assert rows[0].own == pytest.approx(float(off / unit), rel=1e-4)
