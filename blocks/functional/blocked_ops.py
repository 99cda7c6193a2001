"""Row-wise functions, applied to a few rows at a time."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

AT_ONCE = 1 << 16
"""Elements in the rows taken together: few enough for intermediate results to stay in a CPU's caches."""


def by_rows(
    function: Callable[..., Tensor], *tensors: Float[Tensor, "... width"], over: bool = False
) -> Float[Tensor, "... width"]:
    """`function(*tensors)` for a function that acts on each row independently and preserves shape and dtype.

    over: the output may overwrite the first tensor, which then must have no other user.

    On a CPU without gradients the function is called for a few rows at a time. Main memory is then read and written once,
    however many steps the function has, and no step allocates new pages, which costs more than most arithmetic. A compiler
    fuses these steps itself.
    """
    first = tensors[0]
    whole = first.numel() <= AT_ONCE or first.device.type != "cpu" or torch.is_grad_enabled() or torch.compiler.is_compiling()
    if whole:
        return function(*tensors)
    output = first if over else torch.empty_like(first)
    flat = flat_rows(output, *tensors)
    if flat is None:
        return function(*tensors)
    rows = max(AT_ONCE // first.shape[-1], 1)
    for part, *parts in zip(*(torch.split(tensor, rows) for tensor in flat), strict=True):
        part.copy_(function(*parts))
    return output


def flat_rows(*tensors: Float[Tensor, "... width"]) -> tuple[Float[Tensor, "rows width"], ...] | None:
    """Views of tensors of the same shape with their rows in the order of memory: queries by head are rows of a projection by
    token. None if the tensors differ in this order or have gaps."""
    first = tensors[0]
    order = sorted(range(first.ndim - 1), key=first.stride, reverse=True)
    same = all(tensor.stride() == first.stride() for tensor in tensors)
    if not same or not first.permute(*order, -1).is_contiguous():
        return None
    return tuple(tensor.permute(*order, -1).view(-1, tensor.shape[-1]) for tensor in tensors)
