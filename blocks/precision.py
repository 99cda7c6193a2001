"""In which dtype the delicate steps compute."""

import torch
from torch import Tensor


def wide(tensor: Tensor) -> Tensor:
    """`tensor` in at least float32: half precision is widened, float64 stays."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def cast_to(device: str) -> torch.dtype | None:
    """The dtype that autocast gives products on such a device; None where it is off, or unknown as on the meta device."""
    on = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if on else None
