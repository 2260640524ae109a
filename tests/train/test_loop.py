"""The training loop, each part of it beside a form that is written out."""

import json
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from jedi_diffusion.trainer import loop
from jedi_diffusion.trainer.loop import Part, Task, Trainer
from jedi_diffusion.trainer.processes import Processes
from jedi_diffusion.trainer.settings import Every, Schedule, Settings
from jedi_diffusion.trainer.skipping import Skipping
from jedi_diffusion.trainer.state import checkpoints, step_of

SETTINGS = Settings("line", Schedule(0.1), steps=6, progress_bar=False)


class Line(Task):
    """Least squares in float64, in as many parts as asked for, which have other weights each. In calls
    `broken` the gradient is not finite."""

    def __init__(self, parts: int = 1, broken: Sequence[int] = ()) -> None:
        self.network = nn.Linear(3, 1, dtype=torch.float64)
        with torch.no_grad():
            self.network.weight.copy_(torch.tensor([[0.5, -1.0, 2.0]]))
            self.network.bias.fill_(0.25)
        self.count, self.broken = parts, broken
        self.ended: list[bool] = []

    def parts(self, step: int) -> list[Part]:
        def part(number: int) -> Part:
            def loss(network: nn.Module) -> Tensor:
                value = (number + 1) * self.loss(step, *network.parameters())
                return value * torch.inf if step in self.broken else value

            return loss

        return [part(number) for number in range(self.count)]

    def loss(self, step: int, weight: Tensor, bias: Tensor) -> Tensor:
        x = torch.randn(5, 3, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
        return (x @ weight[0] + bias - x.sin().sum(1)).square().mean()

    def end_step(self, sound: bool) -> None:
        self.ended.append(sound)

    def figures(self, seconds: float) -> dict[str, object]:
        return {"seconds_told": seconds, "loss_by_source": {"photos": 0.5, "none": None}, "words": "x"}


def trainer_of(task: Task, folder: Path | None = None, **changes: object) -> Trainer:
    return Trainer(task, replace(SETTINGS, **changes), Processes("cpu"), folder)  # type: ignore[arg-type]


def gradient(task: Line, step: int, values: list[Tensor]) -> list[Tensor]:
    """Of all parts together, which weigh 1, 2, 3 ...: by finite differences, without autograd."""
    scale, found = sum(range(1, task.count + 1)), []
    for place, value in enumerate(values):
        slope = torch.zeros_like(value)
        for index in range(value.numel()):
            ends = []
            for shift in (1e-5, -1e-5):
                moved = [each.clone() for each in values]
                moved[place].view(-1)[index] += shift
                ends.append(task.loss(step, *moved))
            slope.view(-1)[index] = scale * (ends[0] - ends[1]) / 2e-5
        found.append(slope)
    return found


@pytest.mark.parametrize("parts", [1, 3])
def test_a_step_is_adamw_on_the_clipped_gradient_of_all_parts_at_the_schedules_rate(parts: int) -> None:
    """Loshchilov and Hutter, Decoupled Weight Decay Regularization (ICLR 2019), Algorithm 2."""
    task = Line(parts)
    (beta1, beta2), decay, clip = (0.6, 0.8), 0.3, 4.0 * sum(range(1, parts + 1))
    schedule = Schedule(0.1, warmup=3, shape="linear", floor=0.1)
    trainer = trainer_of(task, schedule=schedule, betas=(beta1, beta2), weight_decay=decay, clip=clip)
    values = [each.detach().clone() for each in task.network.parameters()]
    first, second = ([torch.zeros_like(each) for each in values] for _ in range(2))
    norms = []
    for step, rate in enumerate((0.1 / 3, 0.2 / 3, 0.1, 0.1, 0.07, 0.04)):
        expected_loss = sum(range(1, parts + 1)) * task.loss(step, *values)
        slopes = gradient(task, step, values)
        norms.append(float(torch.cat([each.flatten() for each in slopes]).norm()))
        for value, m, v, slope in zip(values, first, second, slopes, strict=True):
            slope *= min(1.0, clip / norms[-1])
            value *= 1 - rate * decay
            m.copy_(beta1 * m + (1 - beta1) * slope)
            v.copy_(beta2 * v + (1 - beta2) * slope**2)
            unbiased = (v / (1 - beta2 ** (step + 1))).sqrt() + 1e-8
            value -= rate * m / (1 - beta1 ** (step + 1)) / unbiased
        loss, norm = trainer.advance()
        assert float(norm) == pytest.approx(norms[-1], rel=1e-6)
        assert float(loss) == pytest.approx(float(expected_loss), rel=1e-6)
        for parameter, value in zip(task.network.parameters(), values, strict=True):
            torch.testing.assert_close(parameter.detach(), value, rtol=1e-5, atol=1e-6)
    assert min(norms) < clip < max(norms)
    assert (trainer.step, trainer.progress, task.ended) == (6, 1, [True] * 6)


class Noted(Processes):
    """Notes when gradients are kept from other processes, and what trackers are given."""

    def __init__(self) -> None:
        super().__init__("cpu")
        self.events: list[object] = []

    def backward(self, loss: Tensor) -> None:
        self.events.append("backward")
        super().backward(loss)

    def unshared(self, network: nn.Module) -> AbstractContextManager[None]:
        @contextmanager
        def inside():
            assert isinstance(network, nn.Linear)
            self.events.append("apart")
            yield
            self.events.append("together")

        return inside()

    def track(self, values: Mapping[str, float], step: int) -> None:
        self.events.append((dict(values), step))


class OneOfTwo(Processes):
    """The other process says that its clock is at 30 s, if it is the main one, and `asks` to stop or not."""

    count = 2

    def __init__(self, main: bool, asks: bool) -> None:
        super().__init__("cpu")
        self.main = main
        self.other = torch.tensor([0.0 if main else 30.0, float(asks)], dtype=torch.float64)

    def sum(self, values: Tensor) -> Tensor:
        return values + self.other


@pytest.mark.parametrize("main", [True, False])
def test_processes_agree_on_the_main_ones_clock_and_stop_together(clock, tmp_path: Path, main: bool) -> None:
    clock.step = 100.1
    trainer = Trainer(Line(), replace(SETTINGS, steps=2), OneOfTwo(main, asks=False), tmp_path / "ends")
    trainer.train()
    assert (trainer.step, trainer.spent) == (2, pytest.approx(200.2) if main else 30.0)
    asked = Trainer(Line(), SETTINGS, OneOfTwo(main, asks=True), tmp_path / "stopped")
    with pytest.raises(
        KeyboardInterrupt, match=r"after step 1 of line; the same command goes on, .* --export"
    ):
        asked.train()
    assert asked.spent == (pytest.approx(100.1) if main else 30.0)
    assert [each.name for each in checkpoints(tmp_path / "stopped" / "state")] == (
        ["step-00000001"] if main else []
    )


def test_gradients_are_averaged_over_processes_with_the_last_part_alone() -> None:
    processes = Noted()
    Trainer(Line(3), SETTINGS, processes).advance()
    assert processes.events == [*["apart", "backward", "together"] * 2, "backward"]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock on which each step takes `step` seconds, and nothing else any."""
    clock = SimpleNamespace(now=1000.0, step=6.0)
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: clock.now))
    advance = Trainer.advance

    def slowly(self: Trainer) -> tuple[Tensor, Tensor]:
        found = advance(self)
        clock.now += clock.step
        return found

    monkeypatch.setattr(Trainer, "advance", slowly)
    return clock


def test_the_log_and_the_trackers_are_told_of_every_step_so_many(clock, tmp_path: Path) -> None:
    processes, task, folder = Noted(), Line(broken=(1, 2)), tmp_path / "runs" / "first"
    clock.step = 1.26
    settings = replace(SETTINGS, steps=5, log=Every(steps=3), schedule=Schedule(0.1, 2))
    Trainer(task, settings, processes, folder).train()
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [3, 5]
    assert [row["skipped"] for row in rows] == [2, 0]
    assert (rows[0]["loss"], rows[0]["gradient_norm"]) == (None, None)
    assert rows[1]["gradient_norm"] > 0
    assert rows[1]["learning_rate"] == 0.1
    assert rows[1]["loss_by_source"] == {"photos": 0.5, "none": None}
    assert [row["seconds"] for row in rows] == [3.8, 6.3]
    assert [row["seconds_told"] for row in rows] == pytest.approx([3.78, 6.3])
    (first, at), (last, then) = (each for each in processes.events if isinstance(each, tuple))
    assert (at, then) == (3, 5)
    assert "loss" not in first
    assert last["loss"] == rows[1]["loss"]
    assert last["loss_by_source/photos"] == 0.5
    assert not {"loss_by_source/none", "words"} & last.keys()
    assert task.ended == [True, False, False, True, True]


BUDGET = replace(
    SETTINGS,
    steps=0,
    minutes=1.0,
    schedule=Schedule(1.0, 0, "cosine"),
    log=Every(steps=1),
    save=Every(steps=4),
)


def test_a_budget_of_time_sets_end_and_learning_rate_and_a_restart_goes_on_in_it(clock, tmp_path) -> None:
    """A minute of steps of 6 s: the rate falls as time passes, over a kill and at another speed too."""

    def rates() -> list[float]:
        return [
            json.loads(line)["learning_rate"] for line in (tmp_path / "log.jsonl").read_text().splitlines()
        ]

    def fallen(*parts: float) -> list[float]:
        return [0.5 * (1 + torch.tensor(torch.pi * part).cos().item()) for part in parts]

    trainer = Trainer(Line(), BUDGET, Processes("cpu"), tmp_path)
    assert (trainer.progress, trainer.steps) == (0, float("inf"))

    class Killed(Line):
        def parts(self, step: int) -> list[Part]:
            if step == 5:
                raise MemoryError
            return super().parts(step)

    with pytest.raises(MemoryError):
        Trainer(Killed(), BUDGET, Processes("cpu"), tmp_path).train()
    assert rates() == pytest.approx(fallen(0, 0.1, 0.2, 0.3, 0.4), abs=1e-6)
    clock.step = 12.0
    resumed = Trainer(Line(), BUDGET, Processes("cpu"), tmp_path)
    assert (resumed.step, resumed.spent, resumed.progress) == (4, 24.0, 0.4)
    assert resumed.steps == pytest.approx(10)
    resumed.train()
    assert (resumed.step, resumed.spent, resumed.progress) == (7, 60.0, 1)
    assert rates() == pytest.approx(fallen(0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8), abs=1e-6)


def test_a_log_that_goes_on_has_each_step_once(tmp_path: Path) -> None:
    """The row of a step that a kill undid is written anew, a row that it cut short is dropped."""
    log = tmp_path / "log.jsonl"
    Trainer(Line(), replace(SETTINGS, steps=4, log=Every(steps=1)), Processes("cpu"), tmp_path).train()
    told = log.read_text()
    log.write_text(told + told.splitlines(keepends=True)[-1].replace('"step": 4', '"step": 5') + told[:20])
    Trainer(Line(), replace(SETTINGS, steps=6, log=Every(steps=1)), Processes("cpu"), tmp_path).train()
    assert log.read_text().startswith(told)
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("changes", "saved", "shown"),
    [
        ({"save": Every(steps=4), "show": Every(steps=3)}, [4, 8, 10], [3, 6, 9]),
        ({"save": Every(minutes=0.25), "show": Every(minutes=0.4)}, [3, 6, 9, 10], [5, 10]),
        ({"show_last": True}, [10], [10]),
        ({"save": Every(minutes=0.2), "show": Every(steps=5), "show_last": True}, [3, 6, 9, 10], [5, 10, 10]),
    ],
)
def test_saves_and_shows_as_often_as_asked_and_at_the_end(
    clock, monkeypatch, tmp_path, changes, saved, shown
) -> None:
    """Steps of 6 s; more than 12 s have passed after three, more than 24 after five."""
    saves: list[int] = []
    monkeypatch.setattr(Trainer, "save", lambda self: saves.append(self.step))
    trainer = trainer_of(Line(), tmp_path, steps=10, **changes)
    shows: list[int] = []
    trainer.train(shows.append)
    assert (saves, shows) == (saved, shown)


def test_a_show_that_fails_leaves_the_trained_weights_in_place() -> None:
    trainer = trainer_of(Line(), ema=0.9)
    trainer.advance()
    trained = trainer.parameters["weight"].detach().clone()

    def fails(step: int) -> None:
        assert torch.equal(trainer.parameters["weight"], trainer.average["weight"])
        assert not torch.equal(trainer.parameters["weight"], trained)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        trainer.with_average(fails)
    assert torch.equal(trainer.parameters["weight"], trained)


def test_without_a_folder_nothing_is_written_and_the_last_loss_is_returned(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    task = Line()
    trainer = trainer_of(task, steps=2)
    trainer.advance()
    values = [each.detach().clone() for each in task.network.parameters()]
    assert trainer.train() == pytest.approx(float(task.loss(1, *values)))
    assert trainer.train() is None
    assert list(tmp_path.iterdir()) == []


def test_signals_act_as_usual_where_there_is_nothing_to_save(tmp_path: Path) -> None:
    handlers: list[object] = []

    class Looking(Line):
        def parts(self, step: int) -> list[Part]:
            handlers.append(signal.getsignal(signal.SIGTERM))
            return super().parts(step)

    usual = signal.getsignal(signal.SIGTERM)
    trainer_of(Looking(), steps=2).train()
    trainer_of(Looking(), tmp_path, steps=1).train()
    assert handlers[:2] == [usual] * 2
    assert handlers[2] != usual
    assert signal.getsignal(signal.SIGTERM) == usual


class Buffers(Line):
    """A buffer that is a part of the weights, which counts steps, and one that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.network.register_buffer("count", torch.zeros(1))
        self.network.register_buffer("scratch", torch.zeros(1), persistent=False)

    def end_step(self, sound: bool) -> None:
        self.network.count += 1  # type: ignore[operator]


def test_buffers_are_kept_and_no_average_where_none_is_asked_for(tmp_path: Path) -> None:
    trainer = trainer_of(Buffers(), tmp_path, steps=3)
    trainer.train()
    assert {*trainer.buffers} == {"count"}
    assert trainer.average == {}
    names = {name for name, _ in trainer._state()}
    assert {"buffers/count", "weights/bias", "optimizer/exp_avg/bias"} <= names
    assert not any(name.startswith("average/") for name in names)
    again = Buffers()
    trainer_of(again, tmp_path, steps=3)
    assert again.network.count.tolist() == [3.0]


@pytest.mark.parametrize(("asked", "main"), [(True, True), (False, True), (True, False)])
def test_the_bar_shows_how_much_is_done(monkeypatch, tmp_path: Path, asked: bool, main: bool) -> None:
    bars: list[loop.tqdm] = []

    def bar(**settings: object) -> loop.tqdm:
        bars.append(tqdm(file=output, mininterval=0, **settings))  # type: ignore[call-overload]
        return bars[-1]

    output, tqdm = StringIO(), loop.tqdm
    monkeypatch.setattr(loop, "tqdm", bar)
    processes = Processes("cpu")
    processes.main = main
    settings = replace(SETTINGS, steps=4, progress_bar=asked, save=Every(steps=1))

    class Killed(Line):
        def parts(self, step: int) -> list[Part]:
            if step == 1:
                raise MemoryError
            return super().parts(step)

    with pytest.raises(MemoryError):
        Trainer(Killed(), settings, processes, tmp_path).train()
    Trainer(Line(), settings, processes, tmp_path).train()
    if asked and main:
        assert [each.n for each in bars] == [0.25, 1.0]
        assert (bars[1].total, bars[1].initial) == (1.0, 0.25)
        assert "line:  25.0%" in output.getvalue()
        assert "line: 100.0%" in output.getvalue()
        assert "step=4, loss=" in output.getvalue()
    else:
        assert output.getvalue() == ""


def test_the_newest_checkpoints_stay_and_those_of_every_so_many_steps(tmp_path: Path) -> None:
    trainer_of(Line(), tmp_path, steps=7, save=Every(steps=1), keep_last=2, keep_every=3).train()
    assert [step_of(each) for each in checkpoints(tmp_path / "state")] == [3, 6, 7]


def test_a_scaler_of_losses_skips_steps_by_itself_and_is_kept(tmp_path: Path, monkeypatch) -> None:
    moved: list[int] = []
    monkeypatch.setattr(Trainer, "_move", lambda self: moved.append(self.step))
    loaded: list[dict] = []
    processes = Processes("cpu")
    scaler = SimpleNamespace(state_dict=lambda: {"scale": 512.0}, load_state_dict=loaded.append)
    processes.scaler = scaler  # type: ignore[assignment]
    for place, device in ((tmp_path, processes), (None, Processes("cpu"))):
        trainer = Trainer(Line(broken=(1,)), SETTINGS, device, place)
        trainer.advance()
        trainer.advance()
    assert moved == [0, 1, 0]
    scaled = Trainer(Line(), SETTINGS, processes, tmp_path)
    scaled.save()
    assert loaded == []
    Trainer(Line(), SETTINGS, processes, tmp_path)
    assert loaded == [{"scale": 512.0}]


@pytest.mark.parametrize(
    ("every", "due"),
    [
        (Every(), [False] * 4),
        (Every(steps=2), [False, True, False, True]),
        (Every(minutes=1.0), [False, False, False, True]),
        (Every(steps=3, minutes=1.0), [False, False, True, True]),
    ],
)
def test_what_is_due(every: Every, due: Callable) -> None:
    assert [every.due(step, 20.001 * step) for step in (1, 2)] + [
        every.due(3, 60.0),
        every.due(4, 60.1),
    ] == due


def test_a_row_in_a_few_words() -> None:
    row = {"step": 7, "loss": 0.12345, "tflops_per_device": 12.345}
    assert loop.in_words(row) == "step=7, loss=0.1235, 12.3 TFLOP/s"
    assert loop.in_words({**row, "mfu": 0.456}) == "step=7, loss=0.1235, MFU 46%"
    assert loop.in_words({"step": 7, "loss": None, "unusable": 0}) == "step=7, loss=none"
    assert loop.in_words({"step": 7, "loss": None, "unusable": 3}) == "step=7, loss=none, unusable=3"


def test_only_steps_in_a_row_that_are_skipped_end_a_run(caplog) -> None:
    skipping, finite, broken = Skipping(3), torch.tensor(1.0), torch.tensor(torch.inf)
    norms = [broken, broken, finite, finite, finite, finite, broken, broken, broken]
    assert [skipping.sound(norm, step) for step, norm in enumerate(norms, 1)] == [
        norm is finite for norm in norms
    ]
    assert skipping.too_many
    told = "Step %d is skipped: the norm of its gradient is inf."
    assert caplog.messages == [told % step for step in (1, 2, 7, 8, 9)]
    caplog.clear()
    at_once = Skipping(1)
    assert not at_once.too_many
    assert not at_once.sound(broken, 4)
    assert (at_once.too_many, caplog.messages) == (True, [])
    assert not Skipping(2).sound(torch.tensor(torch.nan), 4)
    assert caplog.messages == ["Step 4 is skipped: the norm of its gradient is nan."]


def test_what_is_said_of_steps_in_a_row(tmp_path: Path) -> None:
    several, one = Skipping(3).error(9, "rate", None), Skipping(1).error(9, "rate", tmp_path)
    assert str(several) == "The gradients of the last 3 steps, up to step 9, are not finite: lower rate."
    assert str(one) == (
        "The gradient of step 9 is not finite: lower rate and start again in another folder. No such step "
        f"has changed the weights: the newest checkpoint in {tmp_path} is sound."
    )
