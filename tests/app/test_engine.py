"""The engine with a runner that needs no network: order, limits, cancelling, deadlines, shutdown."""

import threading
import time
from collections.abc import Iterator

import pytest
from PIL import Image

from jedi_diffusion.app.engine import Engine
from jedi_diffusion.app.jobs import (
    CancelledJobError,
    ClosedError,
    DeadlineError,
    FaultError,
    Job,
    QueueFullError,
)
from jedi_diffusion.app.kept import GoneError
from jedi_diffusion.errors import JeDiError, UsageError
from tests.helpers.fake_runners import FakeRunner, ask, picture_of, wait

RED, BLUE = (Image.new("RGB", (16, 16), colour) for colour in ("red", "blue"))


@pytest.fixture
def runner() -> FakeRunner:
    return FakeRunner()


@pytest.fixture
def make_engine() -> Iterator:
    made: list[tuple[Engine, tuple[FakeRunner, ...]]] = []

    def make(*runners: FakeRunner, **settings: object) -> Engine:
        made.append((Engine(runners, **settings), runners))
        return made[-1][0]

    yield make
    for engine, runners in made:
        for each in runners:
            each.gate.set()
        engine.close(grace=0)
        assert not any(thread.is_alive() for thread in engine._threads)


def hold(runner: FakeRunner) -> None:
    """Makes the next call wait in its first step."""
    runner.gate.clear()
    runner.at_gate.clear()


def test_makes_each_picture_from_its_own_prompt_and_seed(make_engine, runner) -> None:
    job = make_engine(runner).submit(ask("a", "b", seed=5, references=(RED,)))
    pictures = wait(job).result()
    assert [each.tobytes() for each in pictures] == [
        picture_of("a", 5, (RED,)).tobytes(),
        picture_of("b", 6, (RED,)).tobytes(),
    ]
    assert (job.state, job.progress, job.steps_left) == ("done", 1.0, 0)
    assert not job.ask.references
    assert len(job.ask.digests) == 1


def test_clients_take_turns(make_engine, runner) -> None:
    hold(runner)
    engine = make_engine(runner)
    first = engine.submit(ask("x"), "other")
    runner.at_gate.wait(10)
    jobs = [engine.submit(ask("a1", "a2", "a3"), "a"), engine.submit(ask("b1", "b2"), "b")]
    jobs += [engine.submit(ask("a4"), "a"), engine.submit(ask("c1"), "c")]
    runner.gate.set()
    for job in (first, *jobs):
        wait(job)
    order = [prompt for call in runner.calls for prompt in call.prompts]
    assert order == ["x", "a1", "b1", "c1", "a2", "b2", "a3", "a4"]


def test_what_shares_all_but_prompt_and_seed_shares_calls(make_engine, runner) -> None:
    hold(runner)
    engine = make_engine(runner, batch=4)
    first = engine.submit(ask("x"))
    runner.at_gate.wait(10)
    asks = [ask("a", "b", references=(RED,)), ask("c", references=(RED,)), ask("d", references=(BLUE,))]
    asks.append(ask("e", steps=3))
    jobs = [engine.submit(each, str(number)) for number, each in enumerate(asks)]
    runner.gate.set()
    for job in (first, *jobs):
        wait(job)
    assert [call.prompts for call in runner.calls] == [["x"], ["a", "b", "c"], ["d"], ["e"]]
    assert jobs[1].result()[0].tobytes() == picture_of("c", 0, (RED,)).tobytes()
    # What is kept of references is one client's; in a call of two it is nobody's.
    assert [call.owner for call in runner.calls] == ["", None, "2", "3"]


def test_two_devices_work_at_the_same_time(make_engine) -> None:
    runners = [FakeRunner(), FakeRunner()]
    for each in runners:
        hold(each)
    engine = make_engine(*runners)
    job = engine.submit(ask("a", "b"))
    assert all(each.at_gate.wait(10) for each in runners)
    for each in runners:
        each.gate.set()
    assert len(wait(job).result()) == 2


def test_the_queue_is_bounded_and_recovers(make_engine, runner) -> None:
    hold(runner)
    engine = make_engine(runner, capacity=2)
    with pytest.raises(UsageError, match="3 pictures"):
        engine.submit(ask("a", "b", "c"))
    jobs = [engine.submit(ask("a"))]
    runner.at_gate.wait(10)
    jobs.append(engine.submit(ask("b", "c")))
    with pytest.raises(QueueFullError) as full:
        engine.submit(ask("d"))
    assert full.value.retry_after >= 1
    with pytest.raises(QueueFullError):
        engine.check_room()
    runner.gate.set()
    for job in jobs:
        assert wait(job).state == "done"
    assert wait(engine.submit(ask("d"))).state == "done"
    assert (engine.waiting, engine.unfinished) == (0, 0)


def test_memory_of_references_is_bounded(make_engine, runner) -> None:
    hold(runner)
    engine = make_engine(runner, max_bytes=2 * 3 * 16 * 16)
    with pytest.raises(UsageError, match="MB of references"):
        engine.submit(ask("a", references=(RED, RED, RED)))
    engine.submit(ask("a", references=(RED, RED)))
    with pytest.raises(QueueFullError):
        engine.submit(ask("b", references=(BLUE,)))


def test_cancel_stops_within_one_step(make_engine, runner) -> None:
    hold(runner)
    engine = make_engine(runner)
    job = engine.submit(ask("a", steps=1000))
    behind = engine.submit(ask("b"))
    queued = engine.submit(ask("c"))
    runner.at_gate.wait(10)
    engine.cancel(job)
    engine.cancel(queued)
    assert (job.state, queued.state) == ("cancelled", "cancelled")
    with pytest.raises(CancelledJobError):
        job.result()
    runner.gate.set()
    assert wait(behind).state == "done"
    assert runner.steps == 1 + 4
    assert [call.prompts for call in runner.calls] == [["a"], ["b"]]
    engine.cancel(behind)
    assert behind.state == "done"


def test_a_shared_call_goes_on_for_those_who_still_wait(make_engine, runner) -> None:
    hold(runner)
    engine = make_engine(runner, batch=2)
    engine.submit(ask("x"))
    runner.at_gate.wait(10)
    gone, stays = engine.submit(ask("a")), engine.submit(ask("b"))
    runner.gate.set()
    engine.cancel(gone)
    assert wait(stays).result()[0].tobytes() == picture_of("b", 0).tobytes()


def test_deadlines(make_engine, runner) -> None:
    hold(runner)
    engine = make_engine(runner, deadline=60)
    late = engine.submit(ask("a", steps=1000), seconds=0.05)
    queued = engine.submit(ask("b"), seconds=0.05)
    capped = engine.submit(ask("c"), seconds=1e9)
    assert capped.deadline - capped.submitted == pytest.approx(60)
    runner.at_gate.wait(10)
    time.sleep(0.06)
    engine.end_what_is_late()
    for job in (late, queued):
        with pytest.raises(DeadlineError, match=r"0\.05 s"):
            job.result()
    runner.gate.set()
    assert wait(capped).state == "done"
    assert runner.steps == 1 + 4


def test_faults_end_one_job_and_not_the_worker(make_engine, runner, caplog) -> None:
    engine = make_engine(runner)
    wrong, broken = engine.submit(ask("fail")), engine.submit(ask("crash"))
    with pytest.raises(JeDiError, match="no good"):
        wait(wrong).result()
    with pytest.raises(FaultError) as error:
        wait(broken).result()
    assert "secret" not in str(error.value)
    assert "secret" in caplog.text
    assert wait(engine.submit(ask("a"))).state == "done"
    assert engine.is_alive


def test_progress_previews_and_time_left(make_engine, runner) -> None:
    engine = make_engine(runner)
    hold(runner)
    job = engine.submit(ask("a", "b", steps=10))
    assert engine.seconds_left(job) is None
    job.wants_previews = True
    seen: list[tuple[float, bool]] = []
    job.listeners.append(lambda: seen.append((job.progress, any(job.previews))))
    runner.gate.set()
    wait(job)
    shares = [share for share, _ in seen]
    assert shares == sorted(shares)
    assert len(set(shares)) >= 20
    assert any(previewed for _, previewed in seen)
    assert not any(job.previews)
    other = engine.submit(ask("c"))
    wait(other)
    assert engine.seconds_left(other) == 0


def test_jobs_belong_to_their_client_and_are_forgotten(make_engine, runner) -> None:
    engine = make_engine(runner)
    jobs = [wait(engine.submit(ask("a"), "me")) for _ in range(200)]
    assert all(engine.find(job.id, "me") is job for job in jobs)
    assert engine.find(jobs[2].id, "you") is None
    files = [job.pictures[0].path for job in jobs]
    assert all(path.is_file() and path.parent.stat().st_mode & 0o77 == 0 for path in files)
    engine.keep_bytes = 3 * jobs[0].kept_bytes
    assert engine.find(jobs[0].id, "me") is None
    assert [path.is_file() for path in files] == [False] * 197 + [True] * 3
    engine.keep_seconds = 0.0
    time.sleep(0.01)
    assert engine.find(jobs[-1].id, "me") is None
    assert not any(path.is_file() for path in files)
    with pytest.raises(GoneError):
        jobs[-1].result()


@pytest.mark.parametrize("end", ["cancelled", "failed"])
def test_pictures_that_are_finished_survive_the_end_of_their_job(end, make_engine, runner) -> None:
    engine = make_engine(runner)
    job = engine.submit(ask("a", "b", "c", "d"), "me")

    def stop() -> None:
        if len(job.done) == 2 and not job.is_over:
            if end == "cancelled":
                engine.cancel(job)
            else:
                job.deadline = 0.0
                engine.end_what_is_late()

    job.listeners.append(stop)
    assert wait(job).state == end
    found = engine.find(job.id, "me")
    assert found.done == [0, 1]
    for number, prompt in enumerate("ab"):
        assert found.pictures[number].open().tobytes() == picture_of(prompt, number).tobytes()


def test_close_finishes_what_it_can_and_returns_the_rest(make_engine, runner) -> None:
    runner.step_seconds = 0.02
    engine = make_engine(runner)
    jobs = [engine.submit(ask("a")), engine.submit(ask("b", steps=1000)), engine.submit(ask("c"))]
    closing = threading.Thread(target=engine.close, args=(0.5,))
    closing.start()
    time.sleep(0.05)
    with pytest.raises(ClosedError):
        engine.submit(ask("d"))
    closing.join(20)
    assert not closing.is_alive()
    assert jobs[0].state == "done"
    for job in jobs[1:]:
        with pytest.raises(ClosedError):
            job.result()


def test_many_threads_at_once(make_engine) -> None:
    """Every accepted job ends once, whatever the interleaving of submitting and cancelling."""
    ended: list[str] = []
    engine = make_engine(
        FakeRunner(), FakeRunner(), capacity=10, batch=2, on_end=lambda job: ended.append(job.id)
    )
    accepted: list[Job] = []

    def client(name: str) -> None:
        for number in range(50):
            try:
                job = engine.submit(ask("a", "b", seed=number, steps=2), name)
            except QueueFullError:
                time.sleep(0.001)
                continue
            accepted.append(job)
            if number % 5 == 0:
                engine.cancel(job)

    threads = [threading.Thread(target=client, args=(str(number),)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    for job in accepted:
        wait(job)
    assert sorted(ended) == sorted(job.id for job in accepted)
    assert {job.state for job in accepted} <= {"done", "cancelled"}
    assert engine.waiting == 0
