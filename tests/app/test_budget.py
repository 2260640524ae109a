"""Requests that cost too much are refused before they wait, and before their photos are decoded."""

import pytest
from PIL import Image

from jedi_diffusion.app.budget import Budget, TooMuchError
from jedi_diffusion.app.engine import Engine
from jedi_diffusion.costs import Costs, Growth
from jedi_diffusion.options import SizedSampling
from tests.helpers.fake_runners import SIDE, FakeRunner, ask, wait

COSTS = Costs(Growth(1.0, 0.0), Growth(0.001, 0.0), Growth(0.0, 0.0), "cached")
"""1.2 bytes and a millisecond a pixel and branch."""


@pytest.mark.parametrize(
    ("limits", "fields", "said"),
    [
        ({"max_pixels": 1000}, {"size": "32x32"}, "1024 pixels; this server makes them of up to 1000"),
        ({"costs": COSTS, "memory": 1000}, {"size": "32x32"}, "of memory"),
        ({"costs": COSTS, "max_seconds": 30}, {"n": 8}, "would take about 102 s"),
        ({"costs": COSTS, "max_seconds": 30}, {"steps": 100}, "Take fewer steps"),
    ],
)
def test_the_api_refuses_what_costs_too_much(limits, fields, said, serve) -> None:
    running = serve(budget=Budget(**limits))
    with running.client() as client:
        body = {"prompt": "a robot", **fields}
        for answer in (
            client.post("/v1/images/generations", json=body),
            client.post("/v1/jobs", data=body, files={"image": b"no picture at all"}),
        ):
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "too_much")
            assert said in answer.json()["error"]["message"]
        assert client.post("/v1/images/generations", json={"prompt": "a", "steps": 2}).status_code == 200
    assert len(running.runner.calls) == 1


def test_calls_hold_no_more_pictures_than_memory_does() -> None:
    runner = FakeRunner()
    one = COSTS.bytes(COSTS.work(SizedSampling(height=SIDE, width=SIDE), 1, 0))
    engine = Engine([runner], batch=8, budget=Budget(COSTS, memory=3 * one + 3))
    try:
        wait(engine.submit(ask("a", "b", "c", "d", "e")))
        with pytest.raises(TooMuchError):
            engine.submit(ask("a", references=(Image.new("RGB", (SIDE, SIDE)),) * 9))
    finally:
        engine.close(grace=0)
    assert [len(call.prompts) for call in runner.calls] == [3, 2]


def test_the_estimate_learns_from_calls() -> None:
    how = SizedSampling(height=10, width=10, steps=10)
    budget = Budget(COSTS, max_seconds=2.5)
    assert budget.seconds(how, 0, 10) == pytest.approx(2)
    budget.check(how, 1, 0)
    budget.note(how, 0, 10, 6.0)
    assert budget.seconds(how, 0, 10) == pytest.approx(6)
    with pytest.raises(TooMuchError, match="6 s"):
        budget.check(how, 1, 0)
    counted = Budget()
    assert not counted.is_known
    counted.note(how, 0, 10, 5.0)
    assert counted.seconds(SizedSampling(height=99, width=99, steps=4), 3, 4) == 2
