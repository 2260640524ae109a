"""What a run reports to while it works: counts, speed, time left, the limit of failures, requests to stop."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence

from jedi_diffusion.synthesis.outputs import Marker, total_counts
from jedi_diffusion.synthesis.records import Reason, Rejection
from jedi_diffusion.synthesis.work import STEP_NAMES, StageCount, StepDone, check_failures

EVERY = 15.0
"""Seconds between the reports on two shards, at least."""
SILENCE = 60.0
"""Seconds after which a report comes in the middle of a shard: with large models one takes long."""


class Watch:
    """Counts of a run, those of its earlier starts included. `say` gets a report now and then, and at last.

    failures: records on which models may fail in this start. stopping: whether the run was asked to stop.
    """

    def __init__(
        self,
        shards: int,
        objects: int,
        whole: Sequence[Marker] = (),
        failures: int = 100,
        stopping: Callable[[], bool] = lambda: False,
        say: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True),
    ) -> None:
        self.shards, self.objects = shards, objects
        self.done = len(whole)
        self.counts = {name: StageCount() for name in STEP_NAMES} | total_counts(whole)
        self._failures, self._failed = failures, list[Rejection]()
        self.stopping, self._say = stopping, say
        self._start = self._said = time.monotonic()
        self._before = sum(len(each.objects) for each in whole) * len(STEP_NAMES)
        self._stepped = 0.0
        self._pictures = 0

    def step(self, done: StepDone, rejected: Iterable[Rejection] = ()) -> None:
        """Count the records that a step has dealt with.

        Raises ModelError above the limit, and what `check` raises.
        """
        self.counts[done.step].add(done.count)
        self._stepped += done.objects
        if done.step == "caption":
            self._pictures += done.count.made
        self._failed += [each for each in rejected if each.reason is Reason.MODEL_FAILED]
        check_failures(self._failed, self._failures)
        self.check()
        self._report_after(SILENCE)

    def check(self) -> None:
        """Raise KeyboardInterrupt where the run was asked to stop."""
        if self.stopping():
            raise KeyboardInterrupt(
                f"Stopped with {self.done} of {self.shards} shards whole; the same command goes on."
            )

    def shard(self) -> None:
        """Count a shard that is whole."""
        self.done += 1
        self._report_after(0 if self.done == self.shards else EVERY)

    def _report_after(self, seconds: float) -> None:
        if time.monotonic() - self._said >= seconds:
            self._said = time.monotonic()
            self._say(self.describe())

    def describe(self) -> str:
        """Shards, sets, speed and time left; then a line a step."""
        seconds = max(time.monotonic() - self._start, 1e-9)
        left = self.objects * len(STEP_NAMES) - self._before - self._stepped
        rest = f"{_duration(seconds * left / self._stepped)} left" if self._stepped else "time left unknown"
        if self.done == self.shards:
            rest = f"done in {_duration(seconds)}"
        head = (
            f"{self.done} of {self.shards} shards, {self.counts['set'].made} sets, "
            f"{self.counts['caption'].made} pictures, {self._pictures / seconds:.1f} pictures/s, {rest}"
        )
        return "\n".join([head, *count_lines(self.counts)])


def count_lines(counts: dict[str, StageCount]) -> list[str]:
    """Return a line for each step: what went in and came out, and the reasons of what was rejected."""
    lines = []
    for name, each in counts.items():
        reasons = ", ".join(f"{number} {reason}" for reason, number in each.rejected.most_common())
        line = f"  {name:<9}{each.received:>9} in {each.made:>9} out"
        lines.append(f"{line}   rejected: {reasons}" if reasons else line)
    return lines


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
