"""What GPUs can do at most, to set what a training does against it (MFU, model FLOPs utilization).

Dense products of bfloat16 or float16 with sums in float32, in TFLOP/s. Data sheets often print the figure for
sparse matrices, twice as much, or that for sums in float16, which torch does not use.
"""

import re

import torch

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
    """Operations a second of a device in "bfloat16" or "float16"; None if it is not known.

    In float32 it depends on settings, and a CPU's on its clock: None.
    """
    if device.type != "cuda" or precision == "float32":
        return None
    return peak_of(torch.cuda.get_device_name(device))


def peak_of(name: str) -> float | None:
    """Operations a second of the device with this name ("NVIDIA A100-SXM4-80GB")."""
    if "laptop" in name.lower():  # other chips under the same names
        return None
    for part, tera in PEAKS.items():
        if re.search(rf"\b{part}\b", name, re.IGNORECASE):
            return tera * 1e12
    return None
