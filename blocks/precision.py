"""In which dtype the delicate steps compute."""

import torch
from torch import Tensor

from pairform.blocks.constant import constant


def wide(tensor: Tensor) -> Tensor:
    """`tensor` in at least float32: half precision is widened, float64 stays."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


knows_autocast = constant(torch.amp.is_autocast_available)


def cast_to(device: str) -> torch.dtype | None:
    """The dtype that autocast gives products on such a device; None where it is off, or unknown as on the meta device."""
    on = knows_autocast(device) and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if on else None
