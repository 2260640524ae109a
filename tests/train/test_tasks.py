"""What a stage optimizes, beside its loss written out."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from jedi_diffusion.joint import Diffusion, JointLoss
from jedi_diffusion.sets import SetBatch
from jedi_diffusion.train.config import AutoencoderStage, JointStage
from jedi_diffusion.train.pool import LatentPool, compose, draw_sets
from jedi_diffusion.train.tasks import AutoencoderTask, JointTask

TEXT = 6


class Doubling(nn.Module):
    """Latents are twice the picture; decoding halves, and adds 0.25."""

    def encode(self, x: Tensor) -> SimpleNamespace:
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: 2 * x))

    def decode(self, latents: Tensor) -> SimpleNamespace:
        return SimpleNamespace(sample=latents / 2 + 0.25)


def test_the_autoencoders_loss_is_absolute_plus_squared_error_from_noisy_latents() -> None:
    stage = AutoencoderStage(
        name="a", kind="autoencoder", subjects=1, steps=1, share=1, batch=5, learning_rate=1, latent_noise=0.5
    )
    # Of one colour, which says which picture it is, with one pixel that is brighter.
    pictures = (20 * torch.arange(10, dtype=torch.uint8)).view(10, 1, 1, 1).repeat(1, 3, 4, 4)
    pictures[:, :, 0, 0] += 40
    task = AutoencoderTask(Doubling(), pictures, stage)  # type: ignore[arg-type]
    loss = task.loss(torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(3)
    chosen = torch.randint(10, (5,), generator=generator)
    noise = torch.randn(5, 3, 4, 4, generator=generator).double()
    error = 0.25 + 0.5 * noise / 2  # decoded less clean, whatever the picture
    assert float(loss) == pytest.approx(float(error.abs().mean() + error.square().mean()), rel=1e-5)
    assert len(set(chosen.tolist())) > 1
    seen: list[Tensor] = []
    task.autoencoder.encode = lambda x: seen.append(x) or Doubling().encode(x)  # type: ignore[method-assign, func-returns-value]
    task.loss(torch.Generator().manual_seed(3))
    torch.testing.assert_close(seen[0], 2 * pictures[chosen].float() / 255 - 1)


def joint_task(denoiser: object, **changes: object) -> JointTask:
    random = torch.Generator().manual_seed(0)
    pool = LatentPool(
        latents=torch.randn(7, 3, 2, 4, 4, generator=random).half(),
        coverage=torch.randint(0, 256, (7, 3, 4, 4), generator=random).to(torch.uint8),
        captions=torch.randint(1, 50, (7, 3, TEXT), generator=random).short(),
        names=torch.randint(50, 99, (7, TEXT), generator=random).short(),
        empty=torch.zeros(TEXT).short(),
    )
    values = {
        "name": "sets", "kind": "joint", "subjects": 7, "pictures": 3, "steps": 1, "share": 1, "batch": 12,
        "learning_rate": 1, "set_sizes": {1: 1, 3: 2}, "subject_weight": 2.0,
    }  # fmt: skip
    stage = JointStage.model_validate(values | changes)
    schedule = torch.linspace(0.99, 0.01, 100)
    loss = JointLoss(Diffusion(schedule, "sample"), reference_weight=0.5)
    return JointTask(denoiser, words, pool, loss, stage, nn.ModuleDict())  # type: ignore[arg-type]


def words(tokens: Tensor) -> SimpleNamespace:
    """A text encoder: each token is a vector of its number and its square."""
    return SimpleNamespace(last_hidden_state=torch.stack([tokens.float(), tokens.float() ** 2], dim=2))


def test_a_joint_stages_loss_is_that_of_the_drawn_sets_with_their_captions_and_weights() -> None:
    seen: list[tuple[Tensor, Tensor, SetBatch, str]] = []

    def denoiser(noisy: Tensor, timesteps: Tensor, batch: SetBatch, coupling: str) -> Tensor:
        seen.append((noisy, timesteps, batch, coupling))
        return noisy / 2

    task = joint_task(denoiser, cached=0.0)
    loss = task.loss(torch.Generator().manual_seed(5))
    generator = torch.Generator().manual_seed(5)
    sizes = compose(task.stage.set_sizes, 12)
    draw = draw_sets(task.pool, task.stage, sizes, generator)
    torch.rand((), generator=generator)  # which coupling
    ((noisy, _, batch, coupling),) = seen
    assert (batch.set_sizes, coupling) == (sizes, "joint")
    assert sizes == (1, 1, 1, 1, 3, 3, 3)
    for ours, drawn in ((batch.latents, draw.latents), (batch.mask, draw.mask), (batch.weight, draw.weight)):
        assert ours is not None
        assert torch.equal(ours, drawn)
    assert torch.equal(batch.text, words(draw.tokens).last_hidden_state)
    weight = torch.where(draw.mask == 0, 0.5, 1.0) * draw.weight
    expected = task.joint_loss.draw(batch, generator, "joint")
    assert torch.equal(expected.noisy, noisy)
    errors = expected.emphasis * (noisy / 2 - draw.latents) ** 2
    mean = (weight * errors).double().sum() / (weight.double().sum() * draw.latents.shape[1])
    assert float(loss) == pytest.approx(float(mean), rel=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_as_many_steps_are_cached_as_the_stage_says(share: float) -> None:
    couplings: list[str] = []

    def denoiser(noisy: Tensor, timesteps: Tensor, batch: SetBatch, coupling: str) -> Tensor:
        couplings.append(coupling)
        return noisy

    task = joint_task(denoiser, cached=share)
    for seed in range(300):
        task.loss(torch.Generator().manual_seed(seed))
    assert couplings.count("cached") / 300 == pytest.approx(share, abs=0.08 if 0 < share < 1 else 0)
    assert {*couplings} <= {"cached", "joint"}
