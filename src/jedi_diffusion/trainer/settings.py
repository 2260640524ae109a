"""How a training runs, whatever it trains: learning rate, optimizer, average, and when it saves and tells."""

import math
from dataclasses import dataclass
from typing import Literal

OptimizerName = Literal["adamw", "adamw8bit"]


@dataclass(frozen=True)
class Schedule:
    """A learning rate: linear warm-up to `peak`, then constant, or falling to `floor` times the peak.

    "cosine" falls from the first step to the last, "linear" from the end of the warm-up.
    """

    peak: float
    warmup: int = 0
    shape: Literal["constant", "cosine", "linear"] = "constant"
    floor: float = 0.0

    def rate(self, step: int, steps: float) -> float:
        """Return the learning rate of a step, counted from 0, of `steps`; infinity where not known yet."""
        rate = self.peak * min(1.0, (step + 1) / max(1, self.warmup))
        if self.shape == "cosine":
            fall = 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))
        elif self.shape == "linear":
            fall = max(0.0, 1 - max(0, step - self.warmup) / max(1, steps - self.warmup))
        else:
            return rate
        return rate * (self.floor + (1 - self.floor) * fall)


@dataclass(frozen=True)
class Every:
    """How often something happens: every so many steps, or minutes."""

    steps: int | None = None
    minutes: float | None = None

    def due(self, step: int, seconds: float) -> bool:
        """Tell whether it is time after a step, `seconds` after the last time."""
        by_step = self.steps is not None and step % self.steps == 0
        return by_step or (self.minutes is not None and seconds > 60 * self.minutes)


@dataclass(frozen=True)
class Settings:
    """How to train with AdamW, for `steps` steps, or for `minutes` where they are given.

    clip: largest norm of the gradient. ema: decay of the weights' EMA; None keeps none.
    patience: so many steps in a row whose gradient is not finite end the run; float16's loss scale may have
    to be halved 16 times at the start. rate_key: what the user knows the learning rate as. data: a
    fingerprint; a checkpoint of other data is refused. save, log: at the end too; show: at the end if
    `show_last`. keep_last, keep_every: checkpoints that stay, the newest and those of every so many steps.
    """

    name: str
    schedule: Schedule
    steps: int = 0
    minutes: float | None = None
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    fused: bool = True
    optimizer: OptimizerName = "adamw"
    clip: float = math.inf
    ema: float | None = None
    patience: int = 25
    rate_key: str = "the learning rate"
    data: int | str | None = None
    save: Every = Every()
    log: Every = Every()
    show: Every = Every()
    show_last: bool = False
    keep_last: int = 1
    keep_every: int | None = None
    progress_bar: bool = True

    def ema_decay(self, step: int) -> float:
        """Return the average's decay at a step, smaller at first so that the start is soon forgotten."""
        return min(self.ema or 0.0, (1 + step) / (10 + step))
