"""A mask for flex_attention: one table that says of every query what it sees, and lists of the blocks worth looking into."""

from typing import NamedTuple, TypeAlias

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn import functional

from pairform.blocks.attention.masks import JoinedMask, Mask

SIZE = 128
"""Queries and keys in a block: flex_attention's own default."""
LEAST, MOST = torch.iinfo(torch.int32).min, torch.iinfo(torch.int32).max
PADDING = LEAST
"""The document of a key that is padding, which no query is of."""

Lists: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
"""Counts and numbers of the blocks that are seen in part and whole, by rows and then by columns, in BlockMask's order."""


class Blocks(NamedTuple):
    """table: `[tokens, batch, 5]`: of a query the first and the last key that it sees, the first key of a source (seen whatever
    these say) and its document; of a key its document.
    """

    table: Int[Tensor, "tokens batch 5"]
    lists: Lists


def blocks_of(mask: JoinedMask, batch: int, device: torch.device) -> Blocks:
    """Lower a mask without writing it down whole: blocks are judged by the least and the most of their rows and columns."""
    own, length = mask.parts[0], max(mask.lengths)
    low, high = (bound.expand(batch, -1) for bound in own.interval(device))
    queries = own.query_segments if own.query_segments is not None else torch.zeros_like(low)
    keys = torch.cat([documents(part, batch, device) for part in mask.parts], 1)
    columns = (low, high, torch.full_like(low, own.key_length), queries, keys)
    table = torch.stack([functional.pad(column, (0, length - column.shape[1])) for column in columns], -1)
    table = table.transpose(0, 1).to(torch.int32).contiguous()
    part, whole = judged(low, high, own.key_length, queries, keys)
    return Blocks(table, (*listed(part), *listed(whole), *listed(part.mT), *listed(whole.mT)))


def documents(mask: Mask, batch: int, device: torch.device) -> Int[Tensor, "batch keys"]:
    """Which document each key is of."""
    found = mask.key_segments
    if found is None:
        found = torch.zeros((batch, mask.key_length), dtype=torch.long, device=device)
    return found if mask.valid is None else found.masked_fill(~mask.valid, PADDING)


def judged(
    low: Tensor, high: Tensor, split: int, queries: Tensor, keys: Tensor
) -> tuple[Bool[Tensor, "batch rows columns"], Bool[Tensor, "batch rows columns"]]:
    """Blocks of which a part may be seen, and those that surely are seen whole, which need no look at the table."""
    first_low, last_low = (bound[..., None] for bound in bounds(low, MOST))
    first_high, last_high = (bound[..., None] for bound in bounds(high, -1))
    least, most = bounds(queries, MOST)[0][..., None], bounds(queries, LEAST)[1][..., None]
    first_key, last_key = (bound[:, None] for bound in bounds(keys, PADDING))
    real_key = bounds(keys.masked_fill(keys == PADDING, MOST), MOST)[0][:, None]
    begins = torch.arange(last_key.shape[-1], device=low.device) * SIZE
    ends = (begins + SIZE - 1).clamp(max=keys.shape[1] - 1)
    some = ((first_low <= ends) & (last_high >= begins)) | (ends >= split)
    some = some & (real_key <= most) & (last_key >= least)
    whole = ((last_low <= begins) & (first_high >= ends)) | (begins >= split)
    whole = whole & (first_key == last_key) & (least == most) & (first_key == least)
    return some & ~whole, whole


def bounds(numbers: Int[Tensor, "batch length"], fill: int) -> tuple[Tensor, Tensor]:
    """The least and the most of each block, `[batch, blocks]`, where the last is filled up. There are two blocks or more, since
    torch would compile for one alone."""
    batch, length = numbers.shape
    count = max(2, -(-length // SIZE))
    blocks = functional.pad(numbers, (0, count * SIZE - length), value=fill).view(batch, count, SIZE)
    return blocks.amin(-1), blocks.amax(-1)


def listed(blocks: Bool[Tensor, "batch rows columns"]) -> tuple[Tensor, Tensor]:
    """How many blocks of each row are True, `[batch, 1, rows]`, and their numbers in front, `[batch, 1, rows, columns]`."""
    counts = blocks.sum(-1, dtype=torch.int32)[:, None]
    numbers = blocks.int().argsort(dim=-1, descending=True, stable=True).int()[:, None]
    return counts, numbers.contiguous()
