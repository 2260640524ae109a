"""What a run says of itself: losses by source, role and set size, speed, memory; a JSON line at a time."""

import json
import resource
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor

from jedi_diffusion.train.batches import MicroBatch
from jedi_diffusion.train.skipping import finite_or_none

LARGEST = 16
"""Sets of more pictures are counted with those of this many."""
ROLES = ("target", "reference")

Item = TypeVar("Item")


class Tally:
    """Sums of the pictures' losses and weights since the last row, over all processes.

    peak: operations a second that a device can do at most, None if not known.
    """

    def __init__(self, sources: Sequence[str], accelerator: Accelerator, peak: float | None = None) -> None:
        self.accelerator, self.peak = accelerator, peak
        self._groups: dict[str, Sequence[Any]] = {
            "loss_by_source": list(sources),
            "loss_by_role": ROLES,
            "loss_by_set_size": range(LARGEST + 1),
        }
        columns = sum(map(len, self._groups.values()))
        self._sums = torch.zeros(2, columns, device=accelerator.device)
        self._pictures, self._seconds, self._operations, self._waited = 0, 0.0, 0.0, 0.0
        self._skipped = 0

    def time_reading(self, reader: Iterable[Item]) -> Iterator[Item]:
        """The reader's items; the time that is spent waiting for them is counted."""
        items = iter(reader)
        while True:
            started = time.monotonic()
            try:
                item = next(items)
            except StopIteration:
                return
            self._waited += time.monotonic() - started
            yield item

    def count(self, operations: float) -> None:
        """Floating-point operations that a step needed, of all processes together."""
        self._operations += operations

    def count_skipped(self, skipped: bool) -> None:
        """Once a step: whether its gradient was not finite, so that it changed nothing."""
        self._skipped += skipped

    def add(self, micro: MicroBatch, losses: Tensor, sound: bool = True) -> None:
        """losses: (I,), each picture's weighted error; those of steps that are not `sound` are left out."""
        owners = [each.source for each in micro.sets for _ in range(len(each))]
        roles = [int(flag) for each in micro.sets for flag in each.is_reference]
        sizes = [min(len(each), LARGEST) for each in micro.sets for _ in range(len(each))]
        weights = micro.draw.weight.flatten(1).mean(1)
        self._pictures += len(sizes)
        if not sound:
            return
        first = 0
        for names, columns in zip(self._groups.values(), (owners, roles, sizes), strict=True):
            index = torch.tensor([first + column for column in columns], device=losses.device)
            for row, values in enumerate((losses.float(), weights)):
                self._sums[row].index_add_(0, index, values)
            first += len(names)

    def close(self, step: int, seconds: float, norm: Tensor, rate: float) -> dict[str, Any]:
        """The row of all since the last one. `seconds`: of the whole run.

        loss, gradient_norm: None where there is no finite one. skipped: steps without one.

        tflops_per_device and mfu count what training needs, not what is repeated to save memory. waiting:
        part of this process's time in which the next pictures were not there yet.
        """
        pictures = torch.tensor(float(self._pictures), device=self._sums.device)
        sums = self.accelerator.reduce(self._sums, reduction="sum")
        pictures = self.accelerator.reduce(pictures, reduction="sum")
        errors, weights = sums.tolist()
        losses, first = {}, 0
        for group, names in self._groups.items():
            columns = slice(first, first + len(names))
            triples = zip(names, errors[columns], weights[columns], strict=True)
            losses[group] = {name: error / weight for name, error, weight in triples if weight > 0}
            first += len(names)
        sources = len(self._groups["loss_by_source"])
        elapsed = max(seconds - self._seconds, 1e-9)
        speed = self._operations / elapsed / self.accelerator.num_processes
        total = sum(weights[:sources])
        row = {
            "step": step,
            "loss": sum(errors[:sources]) / total if total else None,
            **losses,
            "skipped": self._skipped,
            "gradient_norm": finite_or_none(norm),
            "learning_rate": rate,
            "pictures_per_second": round(float(pictures) / elapsed, 2),
            "tflops_per_device": float(f"{speed / 1e12:.4g}"),
            "mfu": None if self.peak is None else round(speed / self.peak, 4),
            "waiting": round(self._waited / elapsed, 4),
            "memory_gib": round(memory_gib(self._sums.device), 2),
            "seconds": round(seconds, 1),
        }
        self._sums.zero_()
        self._pictures, self._seconds, self._operations, self._waited = 0, seconds, 0.0, 0.0
        self._skipped = 0
        return row


def summary(row: dict[str, Any]) -> str:
    """A row in a few words, for the progress bar."""
    known = row["mfu"] is not None
    speed = f"MFU {row['mfu']:.0%}" if known else f"{row['tflops_per_device']:.3g} TFLOP/s"
    loss = "none" if row["loss"] is None else f"{row['loss']:.4f}"
    return f"loss={loss}, {speed}"


def memory_gib(device: torch.device) -> float:
    """The most memory that this process has used: on a GPU torch's, else the process's, in GiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kilobytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


class StepLog:
    """Rows to a JSON lines file and to accelerate's trackers, by the main process. A context manager."""

    def __init__(self, path: Path, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self._file = path.open("a") if accelerator.is_main_process else None

    def write(self, row: dict[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()
        flat = {name: value for name, value in row.items() if isinstance(value, int | float)}
        for group, values in row.items():
            if isinstance(values, dict):
                flat |= {f"{group}/{name}": value for name, value in values.items()}
        self.accelerator.log(flat, step=row["step"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.close()
