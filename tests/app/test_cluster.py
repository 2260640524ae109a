"""A server over two replicas that Ray Serve runs on this machine, of which one is killed under load."""

import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil
import pytest
from PIL import Image

from jedi_diffusion.app.cluster import Cluster, _reason
from jedi_diffusion.app.engine import Engine
from jedi_diffusion.app.runner import ModelCard
from jedi_diffusion.calls import Call
from jedi_diffusion.errors import ModelError
from tests.helpers.fake_runners import CARD, FakeRunner, ask, wait
from tests.helpers.waiting import until

CLIENTS, PICTURES, STEPS = 4, 6, 20


class MarkingRunner(FakeRunner):
    """Has a file with its process's number in a folder while it is at a call."""

    def __init__(self, folder: Path) -> None:
        super().__init__(step_seconds=0.05)
        self.mark = folder / str(os.getpid())

    def run(self, call: Call, after_step: Callable) -> list[Image.Image]:
        self.mark.touch()
        try:
            return super().run(call, after_step)
        finally:
            self.mark.unlink()


def load(folder: Path) -> tuple[FakeRunner, ModelCard]:
    return MarkingRunner(folder), CARD


def refuse() -> tuple[FakeRunner, ModelCard]:
    raise ModelError("There are no such weights.")


def replicas() -> list[psutil.Process]:
    family = psutil.Process().children(recursive=True)
    return [each for each in family if "ServeReplica" in " ".join(each.cmdline())]


def newest(marks: Path) -> int | None:
    """The replica that has begun its call last, if that is not long ago."""
    with suppress(FileNotFoundError):  # a call ends while this looks
        begun, pid = max(((each.stat().st_mtime, int(each.name)) for each in marks.iterdir()), default=(0, 0))
        return pid if time.time() - begun < STEPS * 0.05 / 4 else None
    return None


@pytest.fixture(scope="module")
def marks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("marks")


@pytest.fixture(scope="module")
def cluster(marks: Path) -> Iterator[Cluster]:
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # replicas find this file
        patch.setenv("RAY_worker_niceness", "0")
        # One core more than replicas: for the application that cannot start.
        ray.init(address="local", num_cpus=3, include_dashboard=False, log_to_driver=False)
        made = Cluster(partial(load, marks), "test", replicas=2)
        yield made
        made.close()
        ray.shutdown()
    assert replicas() == []


def test_the_reason_is_found_in_a_traceback() -> None:
    told = "It failed. Error:\nRuntimeError: Traceback (most recent call last):\n  File x, line 1\n"
    told += "jedi_diffusion.errors.ModelError: The folder x\n"
    assert _reason(told) == "The folder x."
    assert _reason("Waiting for\n  resources.") == "Waiting for resources."
    assert _reason("") == ""


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_request_is_answered_when_a_replica_is_killed(serve, cluster, marks) -> None:
    until(lambda: cluster.live == 2, 240)
    local = serve(FakeRunner())
    running = serve(runners=cluster.runners(), service={"replicas": cluster})
    answers: dict[int, list] = {}

    def work(number: int) -> None:
        with running.client() as client:
            client.timeout = 240
            for seed in range(number, CLIENTS * PICTURES, CLIENTS):
                given = {"prompt": "a robot", "seed": seed, "steps": STEPS}
                answers[seed] = client.post("/v1/images/generations", json=given).json()["data"]

    with ThreadPoolExecutor(CLIENTS) as pool:
        working = [pool.submit(work, number) for number in range(CLIENTS)]
        until(lambda: len(answers) >= CLIENTS or any(each.done() for each in working), 240)
        until(lambda: newest(marks) is not None, 240)
        victim = newest(marks)
        os.kill(victim, signal.SIGKILL)
        for each in working:
            each.result()
    with local.client() as client:
        for seed in range(CLIENTS * PICTURES):  # whole files, with the settings in them
            given = {"prompt": "a robot", "seed": seed, "steps": STEPS}
            assert answers[seed] == client.post("/v1/images/generations", json=given).json()["data"]
    with running.client() as client:
        assert int(re.search(r"jedi_repeated_calls_total (\d+)", client.get("/metrics").text)[1]) >= 1
        until(lambda: client.get("/readyz").json()["replicas"] == {"live": 2, "wanted": 2}, 240)
    assert len({each.pid for each in replicas()} - {victim}) == 2


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_cancelling_and_previews_reach_across(cluster) -> None:
    until(lambda: cluster.live == 2, 240)
    engine = Engine(cluster.runners())
    try:
        jobs = [engine.submit(ask("a", steps=1000), previews=True) for _ in range(2)]
        until(lambda: all(any(job.previews) for job in jobs), 240)
        for job in jobs:
            engine.cancel(job)
        started = time.monotonic()
        assert wait(engine.submit(ask("b")), 60).state == "done"
        assert time.monotonic() - started < 1000 * 0.05 / 2  # the two have not gone on to their ends
    finally:
        engine.close(grace=0)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_model_that_cannot_be_loaded_is_said(cluster) -> None:
    with pytest.raises(ModelError, match="The replicas cannot start: There are no such weights"):
        Cluster(refuse, "broken", replicas=1)
