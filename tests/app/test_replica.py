"""Both ends of a call to another process, with a link in this one that can break: no Ray here."""

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace

import pytest
from PIL import Image

from jedi_diffusion.app.engine import Engine
from jedi_diffusion.app.jobs import CancelledJobError, FaultError
from jedi_diffusion.app.replica import ATTEMPTS, CallDone, Event, Replica, ReplicaRunner, StepDone
from jedi_diffusion.calls import Call
from jedi_diffusion.errors import JeDiError, ModelError
from jedi_diffusion.options import SizedSampling
from tests.helpers.fake_runners import CARD, SIDE, FakeRunner, ask, picture_of, wait

CALL = Call(["a", "b"], [1, 2], [], [], SizedSampling(height=SIDE, width=SIDE, steps=6))


class LostError(Exception):
    """The replica has died."""


class Link:
    """The events of a call, fetched by whoever iterates; breaks where `breaks_after` events have passed."""

    def __init__(self, replica: Replica, call: Call, breaks_after: int | None) -> None:
        self.replica, self.call, self.breaks_after = replica, call, breaks_after
        self.cancelled = threading.Event()

    def __iter__(self) -> Iterator[Event]:
        with asyncio.Runner() as loop:
            stream = self.replica.run(self.call, CARD.fingerprint)
            for passed in itertools.count():
                if passed == self.breaks_after or self.cancelled.is_set():
                    loop.run(stream.aclose())
                    raise LostError
                try:
                    yield loop.run(anext(stream))
                except StopAsyncIteration:
                    return

    def cancel(self) -> None:
        self.cancelled.set()


class Silent:
    """A link over which nothing comes until it is cancelled."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()

    def __iter__(self) -> Iterator[Event]:
        assert self.cancelled.wait(20)
        raise LostError
        yield

    def cancel(self) -> None:
        self.cancelled.set()


class Links:
    """Starts calls on one replica; the first ones break as told."""

    def __init__(self, runner: FakeRunner, breaks: tuple[int | None, ...] = ()) -> None:
        self.replica = Replica(lambda: (runner, CARD))
        self.breaks = list(breaks)
        self.made: list[Link] = []
        self.repeats = 0

    def start(self, call: Call) -> Link:
        self.made.append(Link(self.replica, call, self.breaks.pop(0) if self.breaks else None))
        return self.made[-1]

    def runner(self) -> ReplicaRunner:
        return ReplicaRunner(self.start, lambda error: isinstance(error, LostError), self.count, pause=0.01)

    def count(self) -> None:
        self.repeats += 1


@pytest.fixture
def make_engine() -> Iterator[Callable[..., Engine]]:
    made: list[Engine] = []

    def make(*links: Links, **settings: object) -> Engine:
        made.append(Engine([each.runner() for each in links], **settings))
        return made[-1]

    yield make
    for engine in made:
        engine.close(grace=0)


def events_of(replica: Replica, call: Call, fingerprint: str = CARD.fingerprint) -> list[Event]:
    async def collect() -> list[Event]:
        return [event async for event in replica.run(call, fingerprint)]

    return asyncio.run(collect())


def test_a_replica_tells_of_each_step_and_of_the_end() -> None:
    replica = Replica(lambda: (FakeRunner(), CARD))
    *steps, end = events_of(replica, CALL)
    assert steps == [StepDone(number) for number in range(6)]
    assert [each.tobytes() for each in end.pictures] == [
        picture_of(prompt, seed).tobytes() for prompt, seed in (("a", 1), ("b", 2))
    ]
    assert asyncio.run(replica.describe()) == CARD


def test_previews_are_sent_only_where_somebody_looks() -> None:
    replica = Replica(lambda: (FakeRunner(), CARD))
    *steps, _ = events_of(replica, replace(CALL, previews=True))
    assert [event.number for event in steps if event.shown] == [1, 4]
    assert [each.size for each in steps[1].look()] == [(SIDE, SIDE)] * 2


def test_errors_of_the_model_are_told_and_faults_are_raised() -> None:
    replica = Replica(lambda: (FakeRunner(), CARD))
    (end,) = events_of(replica, replace(CALL, prompts=["fail", "b"]))
    assert (type(end.error), str(end.error)) == (JeDiError, "The prompt is no good.")
    with pytest.raises(RuntimeError, match="a secret"):
        events_of(replica, replace(CALL, prompts=["crash", "b"]))
    assert isinstance(events_of(replica, CALL)[-1], CallDone)


def test_other_weights_are_refused() -> None:
    runner = FakeRunner()
    (end,) = events_of(Replica(lambda: (runner, CARD)), CALL, "e" * 64)
    assert isinstance(end.error, ModelError)
    assert runner.calls == []


def test_a_cancelled_stream_leaves_the_replica_free() -> None:
    """As Ray cancels: the task that runs the stream. It ends only once the model is at rest."""
    runner = FakeRunner()
    runner.gate.clear()
    replica = Replica(lambda: (runner, CARD))
    call = replace(CALL, sampling=SizedSampling(height=SIDE, width=SIDE, steps=1000))

    async def scene() -> None:
        async def use() -> None:
            async for _ in replica.run(call, CARD.fingerprint):
                pass

        using = asyncio.create_task(use())
        await asyncio.to_thread(runner.at_gate.wait, 10)
        using.cancel()
        await asyncio.sleep(0.05)
        assert not using.done()
        runner.gate.set()
        with pytest.raises(asyncio.CancelledError):
            await using

    asyncio.run(scene())
    assert runner.steps == 1


def test_a_call_waits_for_a_cancelled_one_to_leave_the_model() -> None:
    """Also where the stream is given up before the model is at rest."""
    runner = FakeRunner()
    runner.gate.clear()
    replica = Replica(lambda: (runner, CARD))

    async def use(call: Call) -> list[Event]:
        return [event async for event in replica.run(call, CARD.fingerprint)]

    async def scene() -> list[Event]:
        given_up = asyncio.create_task(
            use(replace(CALL, sampling=SizedSampling(height=SIDE, width=SIDE, steps=1000)))
        )
        await asyncio.to_thread(runner.at_gate.wait, 10)
        while not given_up.done():
            given_up.cancel()
            await asyncio.sleep(0.01)
        following = asyncio.create_task(use(CALL))
        await asyncio.sleep(0.1)
        assert len(runner.calls) == 1
        runner.gate.set()
        return await following

    assert isinstance(asyncio.run(scene())[-1], CallDone)
    assert runner.steps == 1 + 6


def test_the_engine_makes_the_same_pictures_over_a_link(make_engine) -> None:
    red = Image.new("RGB", (SIDE, SIDE), "red")
    engine = make_engine(Links(FakeRunner()), Links(FakeRunner()))
    jobs = [engine.submit(ask("a", "b", seed=seed, references=(red,))) for seed in range(5)]
    for seed, job in enumerate(jobs):
        expected = [picture_of(prompt, seed + k, (red,)).tobytes() for k, prompt in enumerate("ab")]
        assert [each.tobytes() for each in wait(job).result()] == expected


@pytest.mark.parametrize("breaks", [(0,), (3,), (4, 0, 2)])
def test_a_call_whose_replica_dies_is_repeated(make_engine, breaks) -> None:
    links = Links(FakeRunner(), breaks)
    engine = make_engine(links)
    job = engine.submit(ask("a", steps=5))
    seen: list[float] = []
    job.listeners.append(lambda: seen.append(job.progress))
    assert wait(job).result()[0].tobytes() == picture_of("a", 0).tobytes()
    assert links.repeats == len(breaks)
    assert (job.progress, job.state) == (1.0, "done")
    if breaks[0] > 1:  # what was lost is not counted as done
        assert seen != sorted(seen)


def test_a_call_that_kills_replicas_is_given_up(make_engine) -> None:
    links = Links(FakeRunner(), (2,) * ATTEMPTS)
    engine = make_engine(links)
    deadly, after = engine.submit(ask("a")), engine.submit(ask("b"))
    with pytest.raises(FaultError, match=f"{ATTEMPTS} replicas"):
        wait(deadly).result()
    assert links.repeats == ATTEMPTS - 1
    assert wait(after).state == "done"


def test_errors_in_a_living_replica_are_not_repeated(make_engine, caplog) -> None:
    links = Links(FakeRunner())
    engine = make_engine(links)
    with pytest.raises(JeDiError, match="no good"):
        wait(engine.submit(ask("fail"))).result()
    with pytest.raises(FaultError):
        wait(engine.submit(ask("crash"))).result()
    assert "a secret" in caplog.text
    assert (len(links.made), links.repeats) == (2, 0)


def test_cancelling_reaches_the_replica_within_one_step(make_engine) -> None:
    runner = FakeRunner(step_seconds=0.02)
    links = Links(runner)
    engine = make_engine(links)
    job = engine.submit(ask("a", steps=1000))
    assert runner.at_gate.wait(10)
    engine.cancel(job)
    with pytest.raises(CancelledJobError):
        job.result()
    assert wait(engine.submit(ask("b"))).state == "done"
    assert links.made[0].cancelled.is_set()
    assert runner.steps < 1000 / 4  # a busy machine is slow to switch threads


def test_a_call_that_waits_for_a_replica_can_be_cancelled() -> None:
    """Nothing comes from the link at all, as when every machine is down."""
    link = Silent()
    engine = Engine([ReplicaRunner(lambda call: link, lambda error: True)], deadline=0.3)
    try:
        started = time.monotonic()
        job = wait(engine.submit(ask("a")))
        assert job.state == "failed"
        assert link.cancelled.wait(5)
        assert time.monotonic() - started < 10
    finally:
        engine.close(grace=0)
    assert not any(thread.is_alive() for thread in engine._threads)


def test_previews_cross_the_link(make_engine) -> None:
    links = Links(FakeRunner(step_seconds=0.005))
    engine = make_engine(links)
    shown: list[bool] = []
    job = engine.submit(ask("a", steps=20), previews=True)
    job.listeners.append(lambda: shown.append(any(job.previews)))
    wait(job)
    assert any(shown)
    assert links.made[0].call.previews
    wait(engine.submit(ask("a")))
    assert not links.made[1].call.previews


def test_a_server_says_how_many_replicas_live(serve) -> None:
    replicas = SimpleNamespace(live=1, wanted=2, on_repeat=None)
    running = serve(service={"replicas": replicas})
    replicas.on_repeat()
    with running.client() as client:
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()) == (
            200,
            {"status": "ready", "replicas": {"live": 1, "wanted": 2}},
        )
        text = client.get("/metrics").text
        for line in ("jedi_replicas_live 1.0", "jedi_replicas_wanted 2.0", "jedi_repeated_calls_total 1.0"):
            assert line in text
        replicas.live = 0
        assert client.get("/readyz").status_code == 503
        assert client.get("/healthz").status_code == 200
