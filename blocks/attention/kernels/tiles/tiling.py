"""How chunked attention is cut into tiles of scores, and what a mask hides in each."""

from collections.abc import Iterator
from math import ceil
from typing import NamedTuple

import torch
from torch import Tensor

from pairform.blocks.attention.kernels.arguments import FEWEST
from pairform.blocks.attention.kernels.biases import lowest
from pairform.blocks.attention.kernels.operator_arguments import of_row
from pairform.blocks.attention.kernels.tiles.visible import partly_hidden, within
from pairform.blocks.attention.masks import JoinedMask

ON_CPU, ELSEWHERE = 1 << 18, 1 << 26
"""Scores in a tile: on a CPU for each thread, so few that its core's caches hold the buffers of them."""
MOST = 256
"""Queries in the largest tile, times those that share a key."""
WIDER = 1.15
"""A tile of twice the queries is quicker unless it sees more than so many times the keys, as it does in a window."""


class Hidden(NamedTuple):
    """keys: a range of the tile's keys that contains all hidden ones. bias: added to their scores, `[queries or 1, keys]`.
    lost: True at queries that see no key at all, `[queries or 1, 1]`; None where there is none.
    """

    keys: slice
    bias: Tensor
    lost: Tensor | None


class Tile(NamedTuple):
    """Some queries of some heads of one row, and the keys of each part that they may see.

    hidden: which of these the mask hides. number: the tile's place in their order.
    """

    row: int
    queries: slice
    heads: slice
    kv_heads: slice
    keys: tuple[slice, ...]
    hidden: Hidden | None
    number: int


def tiles_of(queries: Tensor, kv_heads: int, mask: JoinedMask, dtype: torch.dtype) -> Iterator[Tile]:
    """Every tile of `[batch, heads, q, head_dim]`; those of the same queries follow each other and share what is hidden."""
    batch, heads, length, _ = queries.shape
    groups = heads // kv_heads
    size, heads_at_once = sizes(queries, kv_heads, mask)
    number = 0
    for row in range(batch):
        own = of_row(mask, row)
        for begin in range(0, length, size):
            some = slice(begin, min(begin + size, length))
            keys, seen = within(own, begin, some.stop)
            hidden = hidden_by(seen, queries.device, dtype)
            for first in range(0, kv_heads, heads_at_once):
                end = min(first + heads_at_once, kv_heads)
                yield Tile(row, some, slice(first * groups, end * groups), slice(first, end), keys, hidden, number)
                number += 1


def sizes(queries: Tensor, kv_heads: int, mask: JoinedMask) -> tuple[int, int]:
    """How many queries and how many heads of keys make a tile."""
    cpu = queries.device.type == "cpu"
    scores = ON_CPU * torch.get_num_threads() if cpu else ELSEWHERE
    rows, groups = MOST if cpu else scores, queries.shape[1] // kv_heads

    def seen(rows: int) -> int:
        return mask.seen_by(max(rows // groups, 1))

    if cpu and seen(MOST) > WIDER * seen(MOST // 2):
        rows = MOST // 2
    while rows > FEWEST and rows * seen(rows) > scores:
        rows //= 2
    size = min(max(rows // groups, 1), queries.shape[2])
    heads = max(scores // (size * groups * mask.seen_by(size)), 1)
    return size, ceil(kv_heads / ceil(kv_heads / heads))


def hidden_by(mask: JoinedMask, device: torch.device, dtype: torch.dtype) -> Hidden | None:
    """What the mask of one row hides; None for nothing."""
    keys, partly = partly_hidden(mask)
    allowed = partly.dense(device)
    bias = lowest(allowed, dtype)
    if allowed is None or bias is None:
        return None
    everywhere = keys.stop - keys.start == mask.lengths[1]
    lost = ~allowed[0, 0].any(-1, keepdim=True) if mask.padded and everywhere else None
    if lost is not None and device.type == "cpu" and not lost.any():  # elsewhere reading it would wait for the device
        lost = None
    return Hidden(keys, bias[0, 0], lost)
