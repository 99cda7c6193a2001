"""Attention over some queries at a time, each chunk with only the keys that its mask lets it see."""

from functools import reduce

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from pairform.blocks.attention.masks import JoinedMask
from pairform.blocks.attention.work import Answer, Parts, Work, bias_of, join
from pairform.blocks.context import Context
from pairform.blocks.precision import wide

ELEMENTS = 1 << 22
"""Scores that are held at a time, over all rows and heads: few enough to stay in a processor's caches."""
FEWEST, MOST = 64, 512
"""Queries in a chunk."""


def chunked(
    queries: Float[Tensor, "batch heads q head_dim"], keys: Parts, values: Parts, work: Work, context: Context
) -> Answer:
    """Memory grows with the length and not with its square; a window's work too. In training each chunk is computed again
    when its gradient is wanted (Rabe and Staats 2021, arXiv 2112.05682).

    Softcap and softmax are in at least float32. A query with no key to attend to spreads evenly over its chunk's keys.
    """
    length = queries.shape[2]
    out = []
    for begin in range(0, length, size := chunk_size(queries, work.mask)):
        end = min(begin + size, length)
        places, mask = work.mask.within(begin, end)
        chunk = queries[:, :, begin:end]
        seen = [part[:, :, place] for part, place in zip((*keys, *values), (*places, *places), strict=True)]
        bias = bias_of(mask, chunk, context)
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (chunk, *seen)):
            mixed = checkpoint(attend_whole, chunk, bias, work, *seen, use_reentrant=False)
        else:
            mixed = attend_whole(chunk, bias, work, *seen)
        out.append(mixed)
    return join(tuple(out), 2), None


def chunk_size(queries: Tensor, mask: JoinedMask) -> int:
    """How many queries' scores are `ELEMENTS` together; a power of two."""
    batch, heads = queries.shape[:2]
    size = MOST
    while size > FEWEST and batch * heads * size * mask.seen_by(size) > ELEMENTS:
        size //= 2
    return size


def attend_whole(queries: Tensor, bias: Tensor | None, work: Work, *seen: Tensor) -> Tensor:
    """One chunk; the first half of `seen` are the parts of its keys, the second those of its values."""
    keys, values = seen[: len(seen) // 2], seen[len(seen) // 2 :]
    kv_heads, length = keys[0].shape[1], queries.shape[2]
    grouped = rearrange(queries, "b (kv g) q d -> b kv (g q) d", kv=kv_heads)
    scores = join(tuple(grouped @ part.transpose(-1, -2) for part in keys), -1)
    scores = wide(scores) * work.scale if work.softcap is None else wide(scores) * (work.scale / work.softcap)
    if work.softcap is not None:
        scores = torch.tanh(scores) * work.softcap
    if bias is not None:
        scores = rearrange(scores, "b kv (g q) k -> b kv g q k", q=length) + bias[:, :, None]
        scores = rearrange(scores, "b kv g q k -> b kv (g q) k")
    weights = functional.dropout(scores.softmax(-1).to(queries.dtype), work.dropout)
    shares = torch.split(weights, [part.shape[2] for part in values], dim=-1)
    mixed = reduce(torch.add, (share @ part for share, part in zip(shares, values, strict=True)))
    return rearrange(mixed, "b kv (g q) d -> b (kv g) q d", q=length)
