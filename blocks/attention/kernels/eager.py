"""The reference for all other kernels."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from pairform.blocks.attention.kernels.arguments import Answer, Parts, Work, bias_of, join, products, weighted, with_bias
from pairform.blocks.context import Context
from pairform.blocks.functional.dtypes import bounded, split_scale, wide


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
    length = queries.shape[2]
    power, rest = split_scale(work.scale, queries.dtype)
    scores = bounded(products(queries if power == 1 else queries * power, keys) * rest, queries.dtype)
    if work.softcap is not None:
        scores = torch.tanh(scores / work.softcap) * work.softcap
    if scores.dtype == torch.float16:
        scores = scores.float()  # a sum with float16's lowest number could be -inf, and a query that sees no key NaN
    bias = grouped_bias(work, scores, queries, keys, context)
    if bias is not None:
        scores = scores + bias
    weights = functional.dropout(wide(scores).softmax(-1).to(queries.dtype), work.dropout)
    if length > 1:
        values = (join(values, 2),)  # one product rounds once, as transformers' does
    return weighted(weights, values, length), rearrange(weights, "b kv (g q) k -> b (kv g) q k", q=length)


def grouped_bias(
    work: Work, scores: Float[Tensor, "batch kv_heads groups_times_q k"], queries: Tensor, keys: Parts, context: Context
) -> Float[Tensor, "#batch #kv_heads groups_times_q k"] | None:
    """What is added to scores as `products` orders them. The mask is repeated for the heads that share keys, once for all
    layers: to add it to scores by head, these would be regrouped twice, which torch.export cannot follow at any length."""
    by_head = rearrange(scores, "b kv (g q) k -> b (kv g) q k", q=queries.shape[2])
    groups = queries.shape[1] // keys[0].shape[1]

    def repeated() -> Tensor | None:
        bias = bias_of(work.mask, by_head, context)
        return bias if bias is None or groups == 1 else torch.cat((bias,) * groups, dim=2)

    if not work.biased:
        return context.once(("grouped bias", groups, scores.dtype, work.mask.key()), repeated)
    bias = with_bias(bias_of(work.mask, by_head, context), work, by_head)
    return None if bias is None else rearrange(bias, "b (kv g) q k -> b kv (g q) k", g=groups)
