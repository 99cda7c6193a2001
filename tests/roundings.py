"""Errors counted in roundings of a dtype."""

import torch
from torch import Tensor


def roundings(found: Tensor, exact: Tensor, dtype: torch.dtype) -> float:
    """The norm of the error over that of the exact value, in roundings of `dtype`: 2^-11 in float16, 2^-8 in bfloat16."""
    found, exact = found.detach().double(), exact.detach()
    return float((found - exact).norm() / exact.norm().clamp(min=1e-12) / (torch.finfo(dtype).eps / 2))
