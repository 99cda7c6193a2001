"""NaN and infinite values: found as tensors pass through memory, at a fraction of the cost of their checksums."""

import torch
from torch import Tensor

from pairform.registry import CheckpointError, Problem


def finite(tensor: Tensor) -> bool:
    """Whether no value is NaN or infinite; both show in the smallest and the largest."""
    return tensor.numel() == 0 or all(bool(bound.isfinite()) for bound in tensor.aminmax())


def check_finite(tensor: Tensor, where: str) -> None:
    """A `CheckpointError` where a source's tensor, or a piece of it, holds NaN or infinite values."""
    if not finite(tensor):
        found = f"{int((~tensor.isfinite()).sum())} values that are NaN or infinite"
        remedy = "Get the weights anew, or mend this tensor; `pairform verify` lists every such tensor of a folder."
        raise CheckpointError(Problem(where, found, "finite weights", remedy))


def cast(tensor: Tensor, dtype: torch.dtype, where: str) -> Tensor:
    """`tensor` in `dtype`; a `CheckpointError` where finite values would become infinite."""
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
