"""In which dtype the delicate steps compute."""

from contextlib import AbstractContextManager, nullcontext
from math import frexp

import torch
from torch import Tensor

from pairform.blocks.functional.constants import constant


def wide(tensor: Tensor) -> Tensor:
    """`tensor` in at least float32: half precision is widened, float64 stays."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def narrower(one: torch.dtype, other: torch.dtype) -> torch.dtype:
    """The dtype of fewer bytes; `one` where they have as many."""
    return other if other.itemsize < one.itemsize else one


def split_scale(scale: float, dtype: torch.dtype) -> tuple[float, float]:
    """Two factors of what multiplies the products of queries and keys: for the queries, and for the products.

    In float16 the first is the power of two in the scale, if that is below 1: to multiply by it rounds nothing, and products
    are beyond the dtype only where scores are too. Elsewhere it is 1.
    """
    power = 2.0 ** min(frexp(scale)[1], 0) if dtype == torch.float16 else 1.0
    return power, scale / power


def bounded(scores: Tensor, dtype: torch.dtype) -> Tensor:
    """Scores that were products in `dtype`: what is beyond float16 is the largest number there, not infinite."""
    largest = torch.finfo(torch.float16).max
    return scores.clamp(-largest, largest) if dtype == torch.float16 else scores


def clamped(tensor: Tensor) -> Tensor:
    """`tensor` within float16's range, where that is its dtype; other dtypes and NaN stay. Values beyond it come out 1000 below
    the largest, as in transformers' T5."""
    if tensor.dtype != torch.float16:
        return tensor
    largest = torch.finfo(torch.float16).max
    bound = torch.where(tensor.isinf().any(), largest - 1000, largest)
    return tensor.clamp(-bound, bound)


knows_autocast = constant(torch.amp.is_autocast_available)


def cast_to(device: str) -> torch.dtype | None:
    """The dtype that autocast gives products on such a device; None where it is off, or unknown as on the meta device."""
    on = knows_autocast(device) and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if on else None


def uncast(device: str) -> AbstractContextManager[None]:
    """Autocast off, for sums that are to stay in the dtype of their terms."""
    return nullcontext() if cast_to(device) is None else torch.autocast(device, enabled=False)
