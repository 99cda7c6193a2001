"""In which dtype the delicate steps compute."""

import torch
from torch import Tensor


def wide(tensor: Tensor) -> Tensor:
    """`tensor` in at least float32: half precision is widened, float64 stays."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
