"""Dtypes of steps that need more range or precision than half precision has."""

from contextlib import AbstractContextManager, nullcontext
from math import frexp

import torch
from torch import Tensor

from pairform.blocks.functional.constants import constant


def wide(tensor: Tensor) -> Tensor:
    """`tensor` in at least float32: half precision is widened, float64 stays."""
    return cast(tensor, wide_dtype(tensor.dtype))


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """A floating dtype, or float32 if that is wider. A comparison in Python is quicker than torch's own promotion."""
    return torch.float32 if dtype.itemsize < torch.float32.itemsize else dtype


def cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """`tensor.to(dtype)`, without the call of an operator where that changes nothing."""
    return tensor if tensor.dtype == dtype else tensor.to(dtype)


def is_sharded(tensor: Tensor) -> bool:
    """Whether this is a DTensor, of which each process holds a part; importing its class takes as long as all of ours."""
    return hasattr(tensor, "full_tensor")


def narrower(one: torch.dtype, other: torch.dtype) -> torch.dtype:
    """The smaller of two dtypes; `one` if they have the same size."""
    return other if other.itemsize < one.itemsize else one


def split_scale(scale: float, dtype: torch.dtype) -> tuple[float, float]:
    """The scale of attention scores as two factors, one for the queries and one for the products of queries and keys.

    In float16 the first is the power of two in the scale, at most 1: multiplication by it does not round, and the products
    overflow only if the scores do. In other dtypes it is 1.
    """
    # frexp: scale = m * 2 ** e with m from 0.5 to 1
    power = 2.0 ** min(frexp(scale)[1], 0) if dtype == torch.float16 else 1.0
    return power, scale / power


def bounded(scores: Tensor, dtype: torch.dtype) -> Tensor:
    """Scores computed in `dtype`; in float16 they are clamped to its range, so that overflow is not infinite."""
    largest = torch.finfo(torch.float16).max
    return scores.clamp(-largest, largest) if dtype == torch.float16 else scores


def clamped(tensor: Tensor) -> Tensor:
    """A float16 tensor clamped to its range, or to 1000 below it if any element is infinite, as in transformers' T5. NaN and
    other dtypes stay."""
    if tensor.dtype != torch.float16:
        return tensor
    largest = torch.finfo(torch.float16).max
    bound = torch.where(tensor.isinf().any(), largest - 1000, largest)
    return tensor.clamp(-bound, bound)


knows_autocast = constant(torch.amp.is_autocast_available)


def cast_to(device: str) -> torch.dtype | None:
    """The dtype of products under autocast on this device type; None if it is off, or not supported as on the meta device."""
    on = knows_autocast(device) and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if on else None


def uncast(device: str) -> AbstractContextManager[None]:
    """A context without autocast, for products that must keep the dtype of their operands."""
    return nullcontext() if cast_to(device) is None else torch.autocast(device, enabled=False)
