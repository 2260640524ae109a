import os
import signal

import pytest

from jedi_diffusion.trainer.interrupts import stop_requests


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_acts(number: signal.Signals) -> None:
    acted = []
    before = signal.signal(number, lambda *given: acted.append(given[0]))
    try:
        with stop_requests() as asked:
            assert not asked()
            os.kill(os.getpid(), number)
            assert asked()
            assert not acted
            os.kill(os.getpid(), number)
            assert acted == [number]
        os.kill(os.getpid(), number)
        assert acted == [number, number]
    finally:
        signal.signal(number, before)
