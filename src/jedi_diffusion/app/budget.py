"""What one request may cost: pixels, memory and time, estimated before it waits for a worker."""

from __future__ import annotations

from dataclasses import dataclass

from jedi_diffusion.calls import pictures_said, references_said
from jedi_diffusion.costs import Costs
from jedi_diffusion.errors import UsageError
from jedi_diffusion.options import SizedSampling

SHARE = 0.75
"""Of the memory that is free at the start, for one call; the rest is for decoding, answers and the page."""
SMOOTHING = 0.2
"""Weight of the latest call in the running mean of the pace."""


class TooMuchError(UsageError):
    """A request would take more memory or time than the server's operator allows."""


@dataclass
class Budget:
    """Limits of a request.

    costs: the model's figures; without them only pixels are limited, and time is told in steps.
    memory: bytes that a call may take, None for any. max_pixels: of one picture, None for any. max_seconds:
    that a request may take with the machine to itself, None for any.
    """

    costs: Costs | None = None
    memory: int | None = None
    max_pixels: int | None = None
    max_seconds: float | None = None
    pace: float | None = None
    """Seconds that calls really take, for each that is estimated (for each picture's step without costs);
    None before the first."""

    @property
    def is_known(self) -> bool:
        """Whether times can be told."""
        return self.costs is not None or self.pace is not None

    def check(self, sampling: SizedSampling, pictures: int, references: int) -> None:
        """Raise TooMuchError for what goes beyond a limit."""
        pixels = sampling.width * sampling.height
        if self.max_pixels is not None and pixels > self.max_pixels:
            raise TooMuchError(
                f"Pictures of {sampling.width}x{sampling.height} have {pixels} pixels; this server makes "
                f"them of up to {self.max_pixels}."
            )
        if self.costs is None:
            return
        need = self.costs.bytes(self.costs.work(sampling, 1, references))
        if self.memory is not None and need > self.memory:
            raise TooMuchError(
                f"{pictures_said(1, sampling)} with {references_said(references)} needs about "
                f"{need / 2**30:.1f} GB of memory; this server gives {self.memory / 2**30:.1f} GB to a call. "
                "Take a smaller size or fewer references."
            )
        seconds = pictures * self.seconds(sampling, references, sampling.steps)
        if self.max_seconds is not None and seconds > self.max_seconds:
            raise TooMuchError(
                f"{pictures_said(pictures, sampling)} in {sampling.steps} steps would take about "
                f"{seconds:.0f} s; this server gives {self.max_seconds:.0f} s to a request. Take fewer "
                "steps, fewer pictures or a smaller size."
            )

    def at_once(self, sampling: SizedSampling, references: int, most: int) -> int:
        """Return how many pictures, 1 to `most`, one call makes within the memory."""
        if self.costs is None or self.memory is None:
            return most
        costs, memory = self.costs, self.memory
        fitting = (
            n for n in range(most, 1, -1) if costs.bytes(costs.work(sampling, n, references)) <= memory
        )
        return next(fitting, 1)

    def seconds(self, sampling: SizedSampling, references: int, steps: int) -> float:
        """About how long one picture takes for so many steps; 0 while nothing is known."""
        pace = float(self.costs is not None) if self.pace is None else self.pace
        return steps * self._estimated_step(sampling, references) * pace

    def note(self, sampling: SizedSampling, references: int, steps: int, seconds: float) -> None:
        """Learn from a call: so many steps of all its pictures together took `seconds`."""
        pace = seconds / (steps * self._estimated_step(sampling, references))
        self.pace = pace if self.pace is None else self.pace + SMOOTHING * (pace - self.pace)

    def _estimated_step(self, sampling: SizedSampling, references: int) -> float:
        """Of one picture, encoding and decoding included; 1 without costs."""
        if self.costs is None:
            return 1.0
        return self.costs.seconds(sampling, 1, references) / sampling.steps
