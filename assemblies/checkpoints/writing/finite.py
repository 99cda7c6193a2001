"""Checks for NaN and infinite values, at a fraction of the cost of checksums."""

import torch
from torch import Tensor

from pairform.registry import CheckpointError, Problem


def finite(tensor: Tensor) -> bool:
    """Whether no value is NaN or infinite; both show in the minimum and maximum."""
    return tensor.numel() == 0 or all(bool(bound.isfinite()) for bound in tensor.aminmax())


def check_finite(tensor: Tensor, where: str) -> None:
    """Raise a `CheckpointError` if a source's tensor, or a piece of it, holds NaN or infinite values."""
    if not finite(tensor):
        found = f"{int((~tensor.isfinite()).sum())} values that are NaN or infinite"
        remedy = "Fetch the weights again, or fix this tensor; `pairform verify` lists every such tensor of a folder."
        raise CheckpointError(Problem(where, found, "finite weights", remedy))


def cast(tensor: Tensor, dtype: torch.dtype, where: str) -> Tensor:
    """`tensor` in `dtype`; a `CheckpointError` if finite values would become infinite."""
    made = tensor.to(dtype)
    if torch.finfo(dtype).max < torch.finfo(tensor.dtype).max and not finite(made):
        lost = tensor.isfinite() & ~made.isfinite()
        if bool(lost.any()):
            largest = float(tensor[lost].abs().max())
            name = str(dtype).removeprefix("torch.")
            found = f"{int(lost.sum())} values beyond {name}'s range, the largest {largest:.6g}"
            remedy = "Choose bfloat16, which has float32's range, or float32."
            raise CheckpointError(Problem(where, found, f"values up to {torch.finfo(dtype).max:.6g}", remedy))
    return made
