"""Peak throughput of accelerators."""

from typing import NamedTuple

import torch

from pairform.registry import InputError, Problem, shorten, suggest


class Peak(NamedTuple):
    """Dense TFLOP/s: of tensor cores in bfloat16 and TF32, and of the other cores in float32."""

    bfloat16: float
    tf32: float
    float32: float


PEAKS = {
    "b200": Peak(2250.0, 1100.0, 75.0),
    "h200-nvl": Peak(835.5, 417.5, 60.0),
    "h200": Peak(989.4, 494.7, 66.9),
    "h100-pcie": Peak(756.0, 378.0, 51.0),
    "h100-nvl": Peak(835.5, 417.5, 60.0),
    "h100": Peak(989.4, 494.7, 66.9),
    "a100": Peak(312.0, 156.0, 19.5),
    "a40": Peak(149.7, 74.8, 37.4),
    "a10": Peak(125.0, 62.5, 31.2),
    "l40s": Peak(362.05, 183.0, 91.6),
    "l4": Peak(121.0, 60.0, 30.3),
    "rtx-4090": Peak(165.2, 82.6, 82.6),
    "rtx-3090": Peak(71.0, 35.6, 35.6),
    "mi300x": Peak(1307.4, 653.7, 163.4),
}
"""By name. From the data sheets of NVIDIA and AMD, which give most figures with 2:4 sparsity: those are halved here. `h100` and
`h200` are the SXM modules."""


def accelerator_of(device: str) -> str | None:
    """The name in `PEAKS` of a device, by the name that its driver reports, such as "NVIDIA H100 80GB HBM3"."""
    words = device.lower().replace("-", " ").split()
    found = [name for name in PEAKS if set(name.split("-")) <= set(words)]
    return max(found, key=len, default=None)  # "h100 pcie" is an h100, too


def local_accelerator() -> str | None:
    """The name in `PEAKS` of this machine's accelerator."""
    return accelerator_of(torch.cuda.get_device_name()) if torch.cuda.is_available() else None


def peak_flops(name: str, precision: str) -> float:
    """Dense peak of one accelerator in FLOP/s for a recipe's precision.

    Raises:
        InputError: an unknown name.
    """
    if name not in PEAKS:
        hint = suggest(name, PEAKS) or "Give its peak in TFLOP/s instead."
        raise InputError(Problem("accelerator", shorten(name), f"one of {', '.join(PEAKS)}", hint))
    peak = PEAKS[name]
    plain = peak.float32 if torch.get_float32_matmul_precision() == "highest" else peak.tf32
    return 1e12 * (plain if precision == "float32" else peak.bfloat16)
