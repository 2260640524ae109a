"""What a run says of itself: losses by source and set size, speed, memory; a JSON line at a time."""

import json
import resource
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from accelerate import Accelerator
from torch import Tensor

from jedi_diffusion.train.batches import MicroBatch

LARGEST = 16
"""Sets of more pictures are counted with those of this many."""


class Tally:
    """Sums of the pictures' losses and weights since the last row, over all processes."""

    def __init__(self, sources: Sequence[str], accelerator: Accelerator) -> None:
        self.sources, self.accelerator = list(sources), accelerator
        self._sums = torch.zeros(2, len(self.sources) + LARGEST + 1, device=accelerator.device)
        self._pictures, self._seconds = 0, 0.0

    def add(self, micro: MicroBatch, losses: Tensor) -> None:
        """losses: (I,), each picture's weighted error."""
        sizes = [min(len(each), LARGEST) for each in micro.sets for _ in range(len(each))]
        owners = [each.source for each in micro.sets for _ in range(len(each))]
        weights = micro.draw.weight.flatten(1).mean(1)
        self._pictures += len(sizes)
        for columns in (owners, [len(self.sources) + size for size in sizes]):
            index = torch.tensor(columns, device=losses.device)
            for row, values in enumerate((losses.float(), weights)):
                self._sums[row].index_add_(0, index, values)

    def close(self, step: int, seconds: float, norm: Tensor, rate: float) -> dict[str, Any]:
        """The row of all since the last one, the same on every process. `seconds`: of the whole run."""
        pictures = torch.tensor(float(self._pictures), device=self._sums.device)
        sums = self.accelerator.reduce(self._sums, reduction="sum")
        pictures = self.accelerator.reduce(pictures, reduction="sum")
        errors, weights = sums.tolist()
        count = len(self.sources)
        named = [*self.sources, *range(LARGEST + 1)]
        means = {
            name: error / weight
            for name, error, weight in zip(named, errors, weights, strict=True)
            if weight > 0
        }
        elapsed = max(seconds - self._seconds, 1e-9)
        row = {
            "step": step,
            "loss": sum(errors[:count]) / max(sum(weights[:count]), 1e-9),
            "loss_by_source": {name: means[name] for name in self.sources if name in means},
            "loss_by_set_size": {name: means[name] for name in range(LARGEST + 1) if name in means},
            "gradient_norm": float(norm),
            "learning_rate": rate,
            "pictures_per_second": round(float(pictures) / elapsed, 2),
            "memory_gib": round(memory_gib(self._sums.device), 2),
            "seconds": round(seconds, 1),
        }
        self._sums.zero_()
        self._pictures, self._seconds = 0, seconds
        return row


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
        flat = {name: value for name, value in row.items() if not isinstance(value, dict)}
        self.accelerator.log(flat, step=row["step"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.close()
