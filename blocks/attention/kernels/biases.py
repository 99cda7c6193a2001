"""What kernels add to scores (masks, biases of positions and sinks), and the output of fully masked queries."""

from functools import reduce

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from pairform.blocks.attention.kernels.arguments import AttentionCall, Parts
from pairform.blocks.attention.masks import JoinedMask

ROWS = 512
"""Rows of a dense mask that `fully_masked` holds at a time, to limit its memory."""


def join(parts: Parts, dim: int) -> Tensor:
    """The parts concatenated along `dim`; a single one is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


def mask_bias(mask: JoinedMask, like: Tensor) -> Tensor | None:
    """The mask as a tensor to add to scores, `[batch or 1, 1, q, k]`, in the dtype of `like`: its lowest number where a query
    may not attend, else zero. None if nothing is masked. Computed once for all layers that share the mask.
    """
    return mask.once(("bias", like.dtype), lambda: lowest(mask.dense(like.device), like.dtype))


def lowest(allowed: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """The lowest number of `dtype` where `allowed` is False, else zero."""
    if allowed is None:
        return None
    # not -inf, whose softmax is NaN at a fully masked query: equal finite numbers give it uniform weights
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill(~allowed, torch.finfo(dtype).min)


def by_distance(numbers: Float[Tensor, "heads distances"], queries: int, keys: int) -> Float[Tensor, "heads queries keys"]:
    """Numbers by distance, laid out as scores: query i and key j get number `j - i + queries - 1` of `queries + keys - 1`, so
    that each diagonal has one number."""
    if torch.compiler.is_exporting():  # which would fix the size of `unfold`
        places = torch.arange(keys, device=numbers.device) - torch.arange(queries, device=numbers.device)[:, None]
        return numbers[:, places + queries - 1]
    # row r of `unfold` begins at number r, and query i at number queries - 1 - i: the same rows in reverse
    return numbers.unfold(-1, keys, 1).flip(-2)


def of_diagonals(scores: Float[Tensor, "heads queries keys"]) -> Float[Tensor, "heads distances"]:
    """The sum of each diagonal, in the order of `by_distance`: the gradient of its numbers."""
    heads, queries, keys = scores.shape
    moved = functional.pad(scores.flip(-2), (0, queries)).flatten(1)[:, : queries * (queries + keys - 1)]  # shifts row i by i
    return moved.view(heads, queries, -1).sum(1)


def with_bias(hidden: Tensor | None, call: AttentionCall, like: Tensor) -> Tensor | None:
    """The sum of the call's score biases and of `hidden`, the mask's bias. `like` has the heads, `[batch, heads, ...]`."""
    if not call.biases:
        return hidden
    sizes = [(call.mask.lengths[0], part.key_length) for part in call.mask.parts]
    nothing = like.new_zeros(())
    parts = [
        nothing.expand(like.shape[1], *size) if numbers is None else by_distance(numbers.to(like.dtype), *size)
        for numbers, size in zip(call.biases, sizes, strict=True)
    ]
    bias = join(tuple(parts), -1)[None]
    # not a sum: in float16 the mask's lowest number plus a negative bias may be -inf
    return bias if hidden is None else torch.where(hidden == 0, bias, hidden)


def fully_masked(mask: JoinedMask, device: torch.device) -> Bool[Tensor, "batch 1 query_length 1"] | None:
    """True at fully masked queries, which may attend to no key; None if there cannot be any."""
    if not mask.padded:
        return None
    parts, length = [], mask.lengths[0]
    for begin in range(0, length, ROWS):
        allowed = mask.rows(begin, min(begin + ROWS, length)).dense(device)
        assert allowed is not None, "it is padded"
        parts.append(~allowed.any(-1, keepdim=True))
    return torch.cat(parts, dim=2)


def average_fully_masked(mixed: Tensor, values: Parts, mask: JoinedMask) -> Tensor:
    """`mixed` with the average of all values at fully masked queries, as in `eager`, where kernels differ."""
    without_keys = mask.once("fully_masked", lambda: fully_masked(mask, mixed.device))
    if without_keys is None:
        return mixed
    count = sum(part.shape[2] for part in values)
    wide = torch.promote_types(mixed.dtype, torch.float32)  # a sum may exceed float16
    average = (reduce(torch.add, (part.sum(2, keepdim=True, dtype=wide) for part in values)) / count).to(mixed.dtype)
    return torch.where(without_keys, average.repeat_interleave(mixed.shape[1] // average.shape[1], dim=1), mixed)
