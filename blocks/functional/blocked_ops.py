"""Elementwise work over many rows, a few of them at a time."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

AT_ONCE = 1 << 18
"""Numbers in the rows taken together: so few that a CPU's caches hold what is computed from them on the way."""


def by_rows(
    function: Callable[..., Tensor], *tensors: Float[Tensor, "... width"], over: bool = False
) -> Float[Tensor, "... width"]:
    """`function(*tensors)`, which treats each row on its own and keeps shape and dtype. over: the answer may take the place of
    the first tensor, which nobody else has seen.

    On a CPU and without gradients it is called for a few rows at a time. Then memory is read and written once, whatever number
    of steps the function takes, and no step asks the system for new pages, which costs more than most arithmetic. Compiled code
    does so by itself.
    """
    first = tensors[0]
    whole = first.numel() <= AT_ONCE or first.device.type != "cpu" or torch.is_grad_enabled() or torch.compiler.is_compiling()
    if whole or not all(tensor.is_contiguous() for tensor in tensors):
        return function(*tensors)
    answer = first if over else torch.empty_like(first)
    rows = max(AT_ONCE // first.shape[-1], 1)
    for part, *parts in zip(
        *(torch.split(tensor.view(-1, tensor.shape[-1]), rows) for tensor in (answer, *tensors)), strict=True
    ):
        part.copy_(function(*parts))
    return answer
