"""Waiting for what another thread or a browser does."""

import time
from collections.abc import Callable


def until(condition: Callable[[], object], seconds: float = 60.0, tab=None) -> None:
    """Return once the condition holds; fail after `seconds`. A browser's `tab` goes on meanwhile."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        tab.wait_for_timeout(20) if tab else time.sleep(0.005)


def until_seen(tab, script: str, argument: object = None, seconds: float = 60.0) -> None:
    """Return once a script is true in the page: `wait_for_function` needs eval, which our pages forbid."""
    until(lambda: tab.evaluate(script, argument), seconds, tab)
