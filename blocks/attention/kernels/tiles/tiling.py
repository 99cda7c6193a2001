"""The division of chunked attention into tiles of scores, and the mask of each tile."""

from collections.abc import Hashable, Iterator
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
"""Scores in a tile. On a CPU per thread, so that the buffers fit into the caches of its core."""
MOST = 256
"""Rows of the largest tile on a CPU: queries times the heads that share a key."""
WIDER = 1.15
"""A tile of twice the queries is faster unless it attends to more than this factor of the keys, as it does with a window."""


class Hidden(NamedTuple):
    """The masked part of a tile.

    keys: a range of the tile's keys that contains all masked ones.
    bias: added to their scores, `[queries or 1, keys]`.
    fully_masked: True at fully masked queries, `[queries or 1, 1]`; None if there is none.
    """

    keys: slice
    bias: Tensor
    fully_masked: Tensor | None


class Tile(NamedTuple):
    """Some queries of some heads of one row, and the range of keys of each part that they attend to.

    hidden: the keys in that range that the mask excludes. number: the index of the tile.
    """

    row: int
    queries: slice
    heads: slice
    kv_heads: slice
    keys: tuple[slice, ...]
    hidden: Hidden | None
    number: int


def tiles_of(queries: Tensor, kv_heads: int, mask: JoinedMask, dtype: torch.dtype) -> Iterator[Tile]:
    """All tiles of `[batch, heads, q, head_dim]`. Those of the same queries are consecutive and share one `Hidden`."""
    batch, heads, length, _ = queries.shape
    groups = heads // kv_heads
    size, heads_at_once = sizes(queries, kv_heads, mask)
    number = 0
    by_place: dict[Hashable, Hidden | None] = {}  # with a window, most tiles are masked alike
    for row in range(batch):
        own = of_row(mask, row)
        for begin in range(0, length, size):
            queries_of_tile = slice(begin, min(begin + size, length))
            keys, tile_mask = within(own, begin, queries_of_tile.stop)
            place = tuple(part.place for part in tile_mask.parts)
            if None in place or place not in by_place:
                by_place[place] = hidden_by(tile_mask, queries.device, dtype)
            hidden = by_place[place]
            for first in range(0, kv_heads, heads_at_once):
                end = min(first + heads_at_once, kv_heads)
                yield Tile(row, queries_of_tile, slice(first * groups, end * groups), slice(first, end), keys, hidden, number)
                number += 1


def sizes(queries: Tensor, kv_heads: int, mask: JoinedMask) -> tuple[int, int]:
    """The number of queries and the number of key heads in a tile."""
    cpu = queries.device.type == "cpu"
    scores = ON_CPU * torch.get_num_threads() if cpu else ELSEWHERE
    rows, groups = MOST if cpu else scores, queries.shape[1] // kv_heads

    def visible_keys(rows: int) -> int:
        return mask.seen_by(max(rows // groups, 1))

    if cpu and visible_keys(MOST) > WIDER * visible_keys(MOST // 2):
        rows = MOST // 2
    # first shrink the number of queries until the scores of one key head fit, then take as many heads as fit
    while rows > FEWEST and rows * visible_keys(rows) > scores:
        rows //= 2
    size = min(max(rows // groups, 1), queries.shape[2])
    heads = max(scores // (size * groups * mask.seen_by(size)), 1)
    # as few tiles as possible, with equal numbers of heads
    return size, ceil(kv_heads / ceil(kv_heads / heads))


def hidden_by(mask: JoinedMask, device: torch.device, dtype: torch.dtype) -> Hidden | None:
    """The masked part of a tile, by the mask of one row; None if nothing is masked."""
    keys, partly = partly_hidden(mask)
    allowed = partly.dense(device)
    bias = lowest(allowed, dtype)
    if allowed is None or bias is None:
        return None
    # a query that may attend to a key outside this range is not fully masked
    everywhere = keys.stop - keys.start == mask.lengths[1]
    fully_masked = ~allowed[0, 0].any(-1, keepdim=True) if mask.padded and everywhere else None
    if fully_masked is not None and device.type == "cpu" and not fully_masked.any():  # elsewhere this would synchronise
        fully_masked = None
    return Hidden(keys, bias[0, 0], fully_masked)
