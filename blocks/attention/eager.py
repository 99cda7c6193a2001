"""The reference for all other kernels."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from pairform.blocks.attention.work import Answer, Parts, Work, bias_of, join, products, weighted, with_bias
from pairform.blocks.context import Context
from pairform.blocks.precision import wide


def eager(
    queries: Float[Tensor, "batch heads q head_dim"],
    keys: Parts,
    values: Parts,
    work: Work,
    context: Context,
) -> Answer:
    """Scores held whole; softmax in float32. A query with no key to attend to spreads evenly over all keys.

    Parts are joined as scores: joining keys and values would copy a long source at each step of decoding, of one query.
    Masked scores are lowered by a sum, as in sdpa and in transformers, so that gradients of such a query agree too.
    """
    kv_heads, length = keys[0].shape[1], queries.shape[2]
    scores = rearrange(products(queries, keys) * work.scale, "b kv (g q) k -> b (kv g) q k", q=length)
    if work.softcap is not None:
        scores = torch.tanh(scores / work.softcap) * work.softcap
    if scores.dtype == torch.float16:
        scores = scores.float()  # a sum with float16's lowest number could be -inf, and a query that sees no key NaN
    bias = with_bias(bias_of(work.mask, scores, context), work, scores)
    if bias is not None:
        scores = scores + bias
    weights = functional.dropout(wide(scores).softmax(-1).to(queries.dtype), work.dropout)
    if length > 1:
        values = (join(values, 2),)  # one product rounds once, as transformers' does
    return weighted(rearrange(weights, "b (kv g) q k -> b kv (g q) k", kv=kv_heads), values, length), weights
