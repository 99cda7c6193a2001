"""Attention over some queries at a time, each chunk with only the keys that its mask lets it see."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from pairform.blocks.attention.masks import JoinedMask
from pairform.blocks.attention.work import Answer, Parts, Work, bias_of, join, products, weighted
from pairform.blocks.context import Context
from pairform.blocks.precision import wide

ELEMENTS = 1 << 21
"""Scores that are held at a time, over all rows and heads: few enough to stay in a processor's caches."""
FEWEST, MOST = 32, 512
"""Queries in a chunk."""


def chunked(
    queries: Float[Tensor, "batch heads q head_dim"], keys: Parts, values: Parts, work: Work, context: Context
) -> Answer:
    """Memory grows with the length and not with its square; a window's work too. In training each chunk is computed again
    when its gradient is wanted (Rabe and Staats 2021, arXiv 2112.05682).

    Softcap and softmax are in at least float32. A query with no key to attend to spreads evenly over its chunk's keys.
    """
    length = queries.shape[2]
    queries, *seen = (tensor.contiguous() for tensor in (queries, *keys, *values))  # or each chunk's products copy them
    train = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (queries, *seen))
    out = []
    for begin in range(0, length, size := chunk_size(queries, work.mask)):
        end = min(begin + size, length)
        places, mask = work.mask.within(begin, end)
        chunk = queries[:, :, begin:end]
        parts = [part[:, :, place] for part, place in zip(seen, (*places, *places), strict=True)]
        bias = bias_of(mask, chunk, context)
        if train:
            out.append(checkpoint(attend_whole, chunk, bias, work, *parts, use_reentrant=False))
        else:
            out.append(attend_whole(chunk, bias, work, *parts))
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
    length = queries.shape[2]
    scores = products(queries, keys)
    scores = scaled(wide(scores), work, rough=scores.dtype.itemsize < 4)
    if bias is not None:
        scores = rearrange(scores, "b kv (g q) k -> b kv g q k", q=length) + bias[:, :, None]
        scores = rearrange(scores, "b kv g q k -> b kv (g q) k")
    weights = functional.dropout(scores.softmax(-1).to(queries.dtype), work.dropout)
    return weighted(weights, values, length)


def scaled(scores: Tensor, work: Work, *, rough: bool) -> Tensor:
    """Scaled and capped, up to a constant that softmax does not see; in place where no gradient is wanted.

    For scores that were `rough` in half precision, tanh(x) = 2 sigmoid(2 x) - 1, ten times as quick on a CPU; its error of some
    1e-7 of the cap is far below theirs.
    """
    cap = work.softcap
    if cap is None:
        return scores * work.scale if scores.requires_grad else scores.mul_(work.scale)
    inner, outer, bound = (2 * work.scale / cap, 2 * cap, torch.sigmoid) if rough else (work.scale / cap, cap, torch.tanh)
    if scores.requires_grad:
        return bound(scores * inner) * outer
    return bound(scores.mul_(inner), out=scores).mul_(outer)
