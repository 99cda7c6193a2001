"""A mask for flex_attention: a table of the keys that each query attends to, and lists of the blocks to compute."""

from typing import NamedTuple, TypeAlias

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn import functional

from pairform.blocks.attention.masks import JoinedMask, Mask

SIZE = 128
"""Queries and keys in a block: flex_attention's default."""
LEAST, MOST = torch.iinfo(torch.int32).min, torch.iinfo(torch.int32).max
PADDING = LEAST
"""The document number of keys that are padding; no query has it."""

Lists: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
"""Counts and indices of the partial and of the full blocks, by rows and then by columns, in BlockMask's order."""


class Blocks(NamedTuple):
    """table: `[tokens, batch, 5]`. Columns 0 to 3 belong to a query: the first and the last key that it attends to, the first
    key of a source (which it attends to in any case), and its document. Column 4 is the document of a key.
    """

    table: Int[Tensor, "tokens batch 5"]
    lists: Lists


def blocks_of(mask: JoinedMask, batch: int, device: torch.device) -> Blocks:
    """Convert a mask without a dense tensor: blocks are classified by the minimum and maximum of their rows and columns."""
    own, length = mask.parts[0], max(mask.lengths)
    low, high = (bound.expand(batch, -1) for bound in own.interval(device))
    queries = own.query_segments if own.query_segments is not None else torch.zeros_like(low)
    keys = torch.cat([documents(part, batch, device) for part in mask.parts], 1)
    columns = (low, high, torch.full_like(low, own.key_length), queries, keys)
    table = torch.stack([functional.pad(column, (0, length - column.shape[1])) for column in columns], -1)
    table = table.transpose(0, 1).to(torch.int32).contiguous()
    table = table.as_strided(table.shape, table.stride())  # else a compiler computes it in the mask's function, which fails
    part, whole = judged(low, high, own.key_length, queries, keys)
    return Blocks(table, (*listed(part), *listed(whole), *listed(part.mT), *listed(whole.mT)))


def documents(mask: Mask, batch: int, device: torch.device) -> Int[Tensor, "batch keys"]:
    """The document number of each key."""
    segments = mask.key_segments
    if segments is None:
        segments = torch.zeros((batch, mask.key_length), dtype=torch.long, device=device)
    return segments if mask.valid is None else segments.masked_fill(~mask.valid, PADDING)


def judged(
    low: Tensor, high: Tensor, split: int, queries: Tensor, keys: Tensor
) -> tuple[Bool[Tensor, "batch rows columns"], Bool[Tensor, "batch rows columns"]]:
    """The blocks that may be masked in part, and those that are certainly not masked at all and need no look at the table."""
    # bounds of query blocks are [batch, rows, 1], those of key blocks [batch, 1, columns]
    first_low, last_low = (bound[..., None] for bound in bounds(low, MOST))
    first_high, last_high = (bound[..., None] for bound in bounds(high, -1))
    least, most = bounds(queries, MOST)[0][..., None], bounds(queries, LEAST)[1][..., None]
    # the fill differs from every document, so that a key block that is not full never counts as whole
    first_key, last_key = (bound[:, None] for bound in bounds(keys, PADDING))
    # the smallest document number of the block's keys that are not padding, which has the lowest number of all
    real_key = bounds(keys.masked_fill(keys == PADDING, MOST), MOST)[0][:, None]
    begins = torch.arange(last_key.shape[-1], device=low.device) * SIZE
    ends = (begins + SIZE - 1).clamp(max=keys.shape[1] - 1)
    # some query's interval meets the block, or the block contains a key of the source
    partial = ((first_low <= ends) & (last_high >= begins)) | (ends >= split)
    # and the ranges of document numbers of queries and keys overlap
    partial = partial & (real_key <= most) & (last_key >= least)
    # every query's interval covers the block, and all queries and keys belong to one document
    whole = ((last_low <= begins) & (first_high >= ends)) | (begins >= split)
    whole = whole & (first_key == last_key) & (least == most) & (first_key == least)
    return partial & ~whole, whole


def bounds(numbers: Int[Tensor, "batch length"], fill: int) -> tuple[Tensor, Tensor]:
    """The minimum and the maximum of each block, `[batch, blocks]`; `fill` pads the last. There are at least two blocks, since
    torch would specialise its code on a size of one."""
    batch, length = numbers.shape
    count = max(2, -(-length // SIZE))
    blocks = functional.pad(numbers, (0, count * SIZE - length), value=fill).view(batch, count, SIZE)
    return blocks.amin(-1), blocks.amax(-1)


def listed(blocks: Bool[Tensor, "batch rows columns"]) -> tuple[Tensor, Tensor]:
    """The number of True blocks in each row, `[batch, 1, rows]`, and the column indices with those of the True ones first,
    `[batch, 1, rows, columns]`."""
    counts = blocks.sum(-1, dtype=torch.int32)[:, None]
    numbers = blocks.int().argsort(dim=-1, descending=True, stable=True).int()[:, None]
    return counts, numbers.contiguous()
