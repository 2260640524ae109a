"""What a run says of itself: losses by source, role and set size, speed, memory."""

import re
import resource
import sys
from collections.abc import Sequence

import torch
from torch import Tensor

from jedi_diffusion.train.batches import MicroBatch
from jedi_diffusion.trainer.processes import Processes

LARGEST = 16
"""Sets of more pictures are counted with those of this many."""
ROLES = ("target", "reference")


class Tally:
    """Sums of the pictures' losses and weights since the last row, over all processes.

    peak: operations a second that a device can do at most, None if not known.
    """

    def __init__(self, sources: Sequence[str], processes: Processes, peak: float | None = None) -> None:
        self.processes, self.peak = processes, peak
        self._groups: dict[str, Sequence[object]] = {
            "loss_by_source": list(sources),
            "loss_by_role": ROLES,
            "loss_by_set_size": range(LARGEST + 1),
        }
        columns = sum(map(len, self._groups.values()))
        self._sums = torch.zeros(2, columns, device=processes.device)
        self._pictures, self._seconds, self._operations, self._waited = 0, 0.0, 0.0, 0.0

    def count_waiting(self, seconds: float) -> None:
        """Seconds that this process waited for its next sets."""
        self._waited += seconds

    def count(self, operations: float) -> None:
        """Floating-point operations that a step needed, of all processes together."""
        self._operations += operations

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

    def close(self, seconds: float) -> dict[str, object]:
        """Return the figures of all since the last call. `seconds`: of the whole run.

        loss: None where no gradient was finite. tflops_per_device and mfu count what training needs, not what
        is repeated to save memory. waiting: part of this process's time in which the next pictures were not
        there yet.
        """
        pictures = self.processes.sum(torch.tensor(float(self._pictures), device=self._sums.device))
        sums = self.processes.sum(self._sums)
        errors, weights = sums.tolist()
        losses: dict[str, object] = {}
        first = 0
        for group, names in self._groups.items():
            columns = slice(first, first + len(names))
            triples = zip(names, errors[columns], weights[columns], strict=True)
            losses[group] = {name: error / weight for name, error, weight in triples if weight > 0}
            first += len(names)
        sources = len(self._groups["loss_by_source"])
        elapsed = max(seconds - self._seconds, 1e-9)
        speed = self._operations / elapsed / self.processes.count
        total = sum(weights[:sources])
        row = {
            "loss": sum(errors[:sources]) / total if total else None,
            **losses,
            "pictures_per_second": round(float(pictures) / elapsed, 2),
            "tflops_per_device": float(f"{speed / 1e12:.4g}"),
            "mfu": None if self.peak is None else round(speed / self.peak, 4),
            "waiting": round(self._waited / elapsed, 4),
            "memory_gib": round(memory_gib(self._sums.device), 2),
        }
        self._sums.zero_()
        self._pictures, self._seconds, self._operations, self._waited = 0, seconds, 0.0, 0.0
        return row


def memory_gib(device: torch.device) -> float:
    """Return the most memory that this process has used: on a GPU torch's, else the process's, in GiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kilobytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


PEAKS = {
    # nvidia.com/en-us/data-center/ h100, h200, dgx-b200: data sheets, half of their figures "with sparsity"
    "H100 NVL": 835,
    "H100 PCIe": 756,
    "H100": 989,
    "H200": 989,
    "GH200": 989,
    "B200": 2250,
    # nvidia.com/en-us/data-center/ a100, a40, a10, products/a30-gpu
    "A100": 312,
    "A40": 150,
    "A30": 165,
    "A10": 125,
    # nvidia.com/en-us/data-center/ l40s, l40, l4, design-visualization/ rtx-6000, rtx-a6000: half as above
    "L40S": 362,
    "L40": 181,
    "L4": 121,
    "RTX 6000 Ada": 364,
    "RTX A6000": 155,
    # White papers "NVIDIA Ampere GA102", "NVIDIA Ada", "NVIDIA RTX Blackwell": tensor cores, FP32 accumulate
    "RTX 3090": 71,
    "RTX 4090": 165,
    "RTX 5090": 209,
}
"""Part of a device's name, and its peak. The first that fits counts."""


def peak(device: torch.device, precision: str) -> float | None:
    """Return operations a second of a device in "bfloat16" or "float16"; None if it is not known.

    In float32 it depends on settings, and a CPU's on its clock: None.
    """
    if device.type != "cuda" or precision == "float32":
        return None
    return peak_of(torch.cuda.get_device_name(device))


def peak_of(name: str) -> float | None:
    """Return operations a second of the device with this name ("NVIDIA A100-SXM4-80GB")."""
    if "laptop" in name.lower():  # other chips under the same names
        return None
    for part, tera in PEAKS.items():
        if re.search(rf"\b{part}\b", name, re.IGNORECASE):
            return tera * 1e12
    return None
