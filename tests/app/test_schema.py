"""Requests drawn from the OpenAPI schema, right and wrong ones: none makes the server fail."""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode

from jedi_diffusion.app.routes import ANSWERS

BOUNDED = settings(
    max_examples=30,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["right", "wrong"])
def test_no_request_makes_the_server_fail(mode, serve) -> None:
    running = serve(deadline=5.0)
    schema = schemathesis.openapi.from_url(f"{running.url}/openapi.json")
    met: set[tuple[str, int]] = set()

    @BOUNDED
    @given(case=schema.as_strategy(generation_mode=mode))
    def send(case) -> None:
        answer = case.call(base_url=running.url)
        met.add((case.path, answer.status_code))
        assert answer.status_code in {200, 202, 422, 405, *ANSWERS}, answer.text

    send()
    assert len({path for path, _ in met}) >= 3
    assert running.engine.is_alive
