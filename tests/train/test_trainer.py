import json
import os
from collections.abc import Collection
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.nn.utils import parametrize

from jedi_diffusion.errors import JeDiError, ModelError, OutputError
from jedi_diffusion.recipes import CONFIGS
from jedi_diffusion.train.config import AutoencoderStage, Recipe, load_recipe
from jedi_diffusion.train.stage import plain_attention, stage_trainer, step_seed
from jedi_diffusion.trainer.loop import Trainer
from jedi_diffusion.trainer.settings import Schedule, Settings
from jedi_diffusion.trainer.state import checkpoints, load_state, save_state, write_tensors

RECIPE = CONFIGS / "train" / "toybox.yaml"


class Regression:
    """Least squares on random inputs: the smallest task there is."""

    def __init__(self, stop_at: int | None = None, broken: Collection[int] = ()) -> None:
        """At call `stop_at` it is killed; in calls `broken` its gradient is not finite."""
        torch.manual_seed(0)
        self.modules = nn.ModuleDict({"line": nn.Linear(4, 1)})
        self.step_shares: dict[str, Tensor] = {}
        self.calls, self.stop_at, self.broken = 0, stop_at, broken

    def loss(self, generator: torch.Generator) -> Tensor:
        self.calls += 1
        if self.calls == self.stop_at:
            raise KeyboardInterrupt
        x = torch.randn(8, 4, generator=generator)
        if self.calls in self.broken:
            x = x * torch.inf
        return (self.modules["line"](x) - x.sum(1, keepdim=True)).square().mean()


@pytest.fixture
def recipe() -> Recipe:
    return load_recipe(RECIPE, "cpu").model_copy(update={"precision": "float32"})


def stage_of(steps: int) -> AutoencoderStage:
    return AutoencoderStage(
        name="line",
        kind="autoencoder",
        subjects=1,
        steps=steps,
        share=1,
        batch=1,
        learning_rate=0.05,
        warmup=5,
    )


def refuses(*given: object, **settings: object) -> None:
    raise SafetensorError("no memory on this device")


def trained(task: Regression, folder: Path, recipe: Recipe, steps: int = 40) -> Trainer:
    trainer = stage_trainer(task, stage_of(steps), recipe, folder, "cpu")
    trainer.train()
    return trainer


def test_training_learns_and_averages(tmp_path: Path, recipe: Recipe) -> None:
    task = Regression()
    trainer = trained(task, tmp_path, recipe, 300)
    torch.testing.assert_close(task.modules["line"].weight, torch.ones(1, 4), atol=0.05, rtol=0)
    rows = [json.loads(line) for line in (tmp_path / "line" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(20, 301, 20))
    assert rows[-1]["loss"] < 0.05 * rows[0]["loss"]
    average = trainer.average["line.weight"].clone()
    trainer.load_average()
    assert torch.equal(task.modules["line"].weight, average)


class Product(Regression):
    """The regression with weights that are `shares` times those that are trained."""

    def __init__(self, shares: Tensor) -> None:
        super().__init__()
        parametrize.register_parametrization(self.modules["line"], "weight", Times(shares))


class Times(nn.Module):
    def __init__(self, factor: Tensor) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, weight: Tensor) -> Tensor:
        return self.factor * weight

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight / self.factor


def test_shares_of_steps_train_as_weights_that_are_multiples_do(tmp_path: Path, recipe: Recipe) -> None:
    shares = torch.tensor([[0.01, 0.1, 1.0, 3.0]])
    stage = stage_of(40).model_copy(update={"clip": 1e9, "weight_decay": 0.0})
    shared, product = Regression(), Product(shares)
    start = shared.modules["line"].weight.detach().clone()
    shared.step_shares = {"line.weight": shares}
    for name, task in (("shared", shared), ("product", product)):
        stage_trainer(task, stage, recipe, tmp_path / name, "cpu").train()
    moved = shared.modules["line"].weight.detach() - start
    assert (moved.abs() > 1e-4).all()
    torch.testing.assert_close(shared.modules["line"].weight, product.modules["line"].weight)
    torch.testing.assert_close(shared.modules["line"].bias, product.modules["line"].bias)


def test_the_average_follows_the_weights_as_its_decay_says(tmp_path: Path, recipe: Recipe) -> None:
    """Step by step, in float64: decay (1 + n) / (10 + n), at most the stage's."""
    stage = stage_of(12).model_copy(update={"ema": 0.4})
    trainer = stage_trainer(Regression(), stage, recipe, tmp_path, "cpu")
    expected = trainer.parameters["line.weight"].detach().double()
    for step in range(12):
        trainer.advance()
        decay = min(0.4, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * trainer.parameters["line.weight"].detach().double()
        torch.testing.assert_close(trainer.average["line.weight"].double(), expected)


def test_the_average_is_only_lent_to_samples(tmp_path: Path, recipe: Recipe) -> None:
    trainer = trained(Regression(), tmp_path, recipe)
    before = trainer.parameters["line.weight"].detach().clone()
    seen: list[Tensor] = []
    trainer.with_average(lambda step: seen.append(trainer.parameters["line.weight"].detach().clone()))
    assert torch.equal(seen[0], trainer.average["line.weight"])
    assert torch.equal(before, trainer.parameters["line.weight"])


def test_a_time_budget_ends_the_stage(tmp_path: Path, recipe: Recipe) -> None:
    trainer = stage_trainer(Regression(), stage_of(10**9), recipe, tmp_path, "cpu", minutes=0.02)
    trainer.train()
    assert trainer.progress == 1
    assert 1.2 <= trainer.spent < 10


def test_a_step_whose_gradient_is_not_finite_changes_nothing(
    tmp_path: Path, recipe: Recipe, caplog: pytest.LogCaptureFixture
) -> None:
    often = recipe.model_copy(update={"save_minutes": 1e-9})
    with pytest.raises(KeyboardInterrupt):
        trained(Regression(stop_at=20), tmp_path / "killed", often, 20)
    before, facts = load_state(tmp_path / "killed" / "line" / "state", "cpu") or ({}, {})
    assert facts["step"] == 19
    trainer = trained(Regression(broken={20}), tmp_path / "broken", recipe, 20)
    for name, value in trainer.parameters.items():
        assert torch.equal(value, before[f"weights/{name}"])
        assert torch.equal(trainer.average[name], before[f"average/{name}"])
    row = json.loads((tmp_path / "broken" / "line" / "log.jsonl").read_text())
    assert row["loss"] is row["gradient_norm"] is None
    assert "Step 20 is skipped: the norm of its gradient is nan" in caplog.text


def test_too_many_broken_steps_end_the_stage_with_a_sound_checkpoint(tmp_path: Path, recipe: Recipe) -> None:
    with pytest.raises(JeDiError, match=r"25 steps, up to step 35, .* lower learning_rate of stage line"):
        trained(Regression(broken=range(11, 41)), tmp_path, recipe)
    tensors, facts = load_state(tmp_path / "line" / "state", "cpu") or ({}, {})
    assert facts["step"] == 35
    assert all(value.isfinite().all() for value in tensors.values())


def test_the_learning_rate_rises_and_stays_or_falls() -> None:
    def rates(shape: str, warmup: int, floor: float = 0.0) -> list[float]:
        schedule = Schedule(2.0, warmup, shape, floor)  # type: ignore[arg-type]
        return [schedule.rate(step, 100) for step in (0, 4, 50, 75, 100)]

    assert rates("constant", 5) == pytest.approx([0.4, 2, 2, 2, 2])
    assert rates("cosine", 0) == pytest.approx([2, 1.992, 1, 1 - 0.5**0.5, 0], abs=1e-3)
    assert rates("cosine", 5, 0.02)[2:] == pytest.approx(
        [0.04 + 1.96 / 2, 0.04 + 0.98 * (1 - 0.5**0.5), 0.04]
    )
    assert rates("linear", 25) == pytest.approx([0.08, 0.4, 2 * 2 / 3, 2 / 3, 0])
    assert Schedule(2.0, 5, "cosine").rate(0, float("inf")) == pytest.approx(0.4)
    assert Schedule(2.0, 0, "cosine", 0.02).rate(150, 100) == pytest.approx(0.04)


def test_the_average_forgets_its_start() -> None:
    settings = Settings("line", Schedule(1.0), ema=0.999)
    assert settings.ema_decay(0) == pytest.approx(0.1)
    assert settings.ema_decay(10**6) == 0.999


def test_step_seeds_differ_by_seed_stage_and_step() -> None:
    seeds = {step_seed(seed, stage, step) for seed in (0, 1) for stage in ("a", "b") for step in range(50)}
    assert len(seeds) == 200
    assert all(0 <= seed < 2**62 for seed in seeds)


def test_an_unfinished_checkpoint_is_never_read(tmp_path: Path) -> None:
    save_state(tmp_path, 1, {"x": torch.ones(2)}, {"spent": 1.0})
    (tmp_path / ".partial-1").mkdir()
    (tmp_path / ".partial-1" / "state.safetensors").write_bytes(b"half")
    save_state(tmp_path, 2, {"x": torch.full((2,), 2.0)}, {"spent": 2.0})
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000002"]
    tensors, facts = load_state(tmp_path, "cpu") or ({}, {})
    assert tensors["x"].tolist() == [2.0, 2.0]
    assert facts == {"spent": 2.0, "step": 2}


def test_a_failed_write_keeps_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_state(tmp_path, 1, {"x": torch.ones(2)}, {})

    def full(tensors: object, path: Path) -> None:
        path.write_bytes(b"its begin")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("jedi_diffusion.trainer.state.save_file", full)
    with pytest.raises(OutputError, match="No space left"):
        save_state(tmp_path, 2, {"x": torch.ones(2)}, {})
    with pytest.raises(OutputError, match=r"more\.safetensors cannot be written: .*No space left"):
        write_tensors(tmp_path / "step-00000001" / "more.safetensors", {"x": torch.ones(2)})
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert {path.name for path in tmp_path.glob("*/*")} == {"state.safetensors", "state.json"}
    assert load_state(tmp_path, "cpu") is not None


def test_a_checkpoint_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its two files and, once it is renamed, the folder; what a killed process left of another is gone."""
    synced, real = [], os.fsync

    def spy(handle: int) -> None:
        synced.append((os.fstat(handle).st_ino, len(checkpoints(tmp_path))))
        real(handle)

    (tmp_path / ".partial-1").mkdir()
    monkeypatch.setattr(os, "fsync", spy)
    made = save_state(tmp_path, 1, {"x": torch.ones(2)}, {})
    files = [made / "state.safetensors", made / "state.json", tmp_path]
    assert synced == [(path.stat().st_ino, number) for path, number in zip(files, (0, 0, 1), strict=True)]
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_only_damage_is_called_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_state(tmp_path, 1, {"x": torch.ones(2)}, {})
    for device in ("cpu:0", "cpu:1", torch.device("cpu", 1)):  # as several processes call theirs
        assert load_state(tmp_path, device)[0]["x"].tolist() == [1, 1]  # type: ignore[index]
    with monkeypatch.context() as patch:
        patch.setattr("jedi_diffusion.trainer.state.safe_open", refuses)
        with pytest.raises(ModelError, match="step-00000001 cannot be read: no memory on this device"):
            load_state(tmp_path, "cpu")
    (path / "state.safetensors").write_bytes(b"\x00" * 10)
    with pytest.raises(ModelError, match="step-00000001 is damaged"):
        load_state(tmp_path, "cpu")


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
def test_plain_attention_is_attention_and_leaves_no_setting_behind(dtype: torch.dtype, error: float) -> None:
    random = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, 40, 8, generator=random).to(dtype)
    bias = torch.randn(4, 40, 40, generator=random).to(dtype)
    before = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()
    with plain_attention():
        mixed = scaled_dot_product_attention(query, key, value, attn_mask=bias)
        assert torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()
    scores = query.double() @ key.double().mT / 8**0.5 + bias.double()
    torch.testing.assert_close(mixed.double(), scores.softmax(-1) @ value.double(), atol=error, rtol=error)
    with pytest.raises(ZeroDivisionError), plain_attention():
        raise ZeroDivisionError
    assert torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed() == before
