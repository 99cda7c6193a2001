"""What kernels add to scores: masks, biases of positions and sinks; and what a query that sees no key gets."""

from functools import reduce

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from pairform.blocks.attention.kernels.arguments import AttentionCall, Parts
from pairform.blocks.attention.masks import JoinedMask


def join(parts: Parts, dim: int) -> Tensor:
    """Parts as one; a single one is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


def mask_bias(mask: JoinedMask, like: Tensor) -> Tensor | None:
    """What a mask adds to scores of the device and dtype of `like`, `[batch or 1, 1, q, k]`: the lowest number where a query
    may not attend. None for nothing.
    """
    return mask.once(("bias", like.dtype), lambda: lowest(mask.dense(like.device), like.dtype))


def lowest(allowed: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """The lowest number of `dtype` where nothing is allowed, else zero."""
    if allowed is None:
        return None
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill(~allowed, torch.finfo(dtype).min)


def by_distance(numbers: Float[Tensor, "heads distances"], queries: int, keys: int) -> Float[Tensor, "heads queries keys"]:
    """Number `j - i + queries - 1` for query i and key j, `queries + keys - 1` numbers in all: every diagonal has one."""
    return numbers.unfold(-1, keys, 1).flip(-2)


def of_diagonals(scores: Float[Tensor, "heads queries keys"]) -> Float[Tensor, "heads distances"]:
    """The sum of every diagonal, as `by_distance` numbers them: its gradient."""
    heads, queries, keys = scores.shape
    moved = functional.pad(scores.flip(-2), (0, queries)).flatten(1)[:, : queries * (queries + keys - 1)]  # row i, by i places
    return moved.view(heads, queries, -1).sum(1)


def with_bias(hidden: Tensor | None, call: AttentionCall, like: Tensor) -> Tensor | None:
    """What `mask_bias` says, and the call's own biases where a query may attend; `like` has the heads `[batch, heads, ...]`."""
    if not call.biases:
        return hidden
    sizes = [(call.mask.lengths[0], part.key_length) for part in call.mask.parts]
    nothing = like.new_zeros(())
    parts = [
        nothing.expand(like.shape[1], *size) if numbers is None else by_distance(numbers.to(like.dtype), *size)
        for numbers, size in zip(call.biases, sizes, strict=True)
    ]
    bias = join(tuple(parts), -1)[None]
    return bias if hidden is None else torch.where(hidden == 0, bias, hidden)


def average_where_lost(mixed: Tensor, values: Parts, mask: JoinedMask) -> Tensor:
    """`mixed` with the mean of all values for a query that sees no key, as in `eager`, whatever a kernel returns for it."""
    lost = mask.once("lost", lambda: mask.lost(mixed.device))
    if lost is None:
        return mixed
    count = sum(part.shape[2] for part in values)
    wide = torch.promote_types(mixed.dtype, torch.float32)  # a sum may exceed float16
    even = (reduce(torch.add, (part.sum(2, keepdim=True, dtype=wide) for part in values)) / count).to(mixed.dtype)
    return torch.where(lost, even.repeat_interleave(mixed.shape[1] // even.shape[1], dim=1), mixed)
