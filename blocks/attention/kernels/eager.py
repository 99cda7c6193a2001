"""The reference implementation of attention."""

from functools import reduce

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from pairform.blocks.attention.kernels.arguments import AttentionCall, Output, Parts
from pairform.blocks.attention.kernels.biases import mask_bias, with_bias
from pairform.blocks.functional.dtypes import bounded, cast, split_scale, wide, wide_dtype
from pairform.blocks.functional.processor import wide_rows
from pairform.blocks.functional.softcap import softcapped


def eager(
    queries: Float[Tensor, "batch heads q head_dim"],
    keys: Parts,
    values: Parts,
    call: AttentionCall,
) -> Output:
    """Attention with all scores in memory and the softmax in float32. A fully masked query attends uniformly to all keys.

    Queries of the heads that share a key head are rows of one product, so that keys are not repeated. The scores of several
    parts are concatenated, not their keys and values, which would copy a long source at each decoding step. The mask is added
    to the scores, as in sdpa and in transformers, so that gradients of fully masked queries agree too.
    """
    batch, heads, length, head_dim = queries.shape
    kv_heads = keys[0].shape[1]
    least = None if torch.compiler.is_exporting() else wide_rows(queries.device.type, queries.dtype)
    if least is not None and heads // kv_heads * length >= least:
        return widened(queries, keys, values, call)
    # rows: [batch, kv_heads, groups * q, head_dim]
    rows, rest = queries, call.scale
    if heads != kv_heads:  # `reshape` would guard the strides of every length, which torch.export cannot
        rows = queries.contiguous().view(batch, kv_heads, heads // kv_heads * length, head_dim)
    if queries.dtype == torch.float16:
        power, rest = split_scale(call.scale, queries.dtype)
        rows = rows * power
    # scores: [batch, kv_heads, groups * q, keys of all parts]
    scores = product(rows, keys[0].transpose(-1, -2))
    if len(keys) > 1:
        scores = torch.cat([scores, *(product(rows, part.transpose(-1, -2)) for part in keys[1:])], -1)
    # scale, softcap, mask, softmax in float32, rounding: in transformers' order, to give the same bits. In place where the
    # backward pass does not need what is overwritten
    scores = scores.mul_(rest)
    if queries.dtype == torch.float16:
        scores = bounded(scores, queries.dtype)
    if call.softcap is not None:
        scores = softcapped(scores, call.softcap)
    if scores.dtype == torch.float16:
        scores = scores.float()  # a sum with float16's lowest number may be -inf: NaN at fully masked queries
    bias = grouped_bias(call, scores, heads, length)
    if bias is not None:
        scores = scores.add_(bias)
    weights = cast(scores.softmax(-1, dtype=wide_dtype(scores.dtype)), queries.dtype)
    if call.dropout:
        weights = functional.dropout(weights, call.dropout)
    if length > 1 and len(values) > 1:
        values = (torch.cat(values, 2),)  # one product rounds once, as transformers' does
    if len(values) == 1:
        mixed = product(weights, values[0])
    else:
        shares = torch.split(weights, [part.shape[2] for part in values], dim=-1)
        mixed = reduce(torch.add, map(product, shares, values))
    if heads != kv_heads:  # in two steps, of which torch.export can follow each at any length
        mixed = mixed.view(batch, kv_heads, heads // kv_heads, length, values[0].shape[-1]).flatten(1, 2)
    return mixed, weights.reshape(batch, heads, length, weights.shape[-1]) if call.weights else None


def widened(queries: Tensor, keys: Parts, values: Parts, call: AttentionCall) -> Output:
    """`eager` in float32, for CPUs that multiply it faster than half precision; scores and weights are not rounded between."""
    mixed, weights = eager(wide(queries), tuple(map(wide, keys)), tuple(map(wide, values)), call)
    return mixed.to(queries.dtype), None if weights is None else weights.to(queries.dtype)


def product(rows: Float[Tensor, "batch kv_heads r x"], part: Float[Tensor, "sources kv_heads x y"]) -> Tensor:
    """`rows @ part`. Consecutive rows of the batch (beams) may share one source, which is then read once for all of them."""
    if rows.shape[0] == part.shape[0]:
        return rows @ part
    (batch, kv_heads, count, width), sources = rows.shape, part.shape[0]
    # [sources, beams, kv_heads, count, width] -> [sources, kv_heads, beams * count, width]
    together = rows.view(sources, -1, kv_heads, count, width).transpose(1, 2).reshape(sources, kv_heads, -1, width)
    apart = (together @ part).view(sources, kv_heads, -1, count, part.shape[-1])
    return apart.transpose(1, 2).reshape(batch, kv_heads, count, part.shape[-1])


def grouped_bias(
    call: AttentionCall, scores: Float[Tensor, "batch kv_heads groups_times_q k"], heads: int, length: int
) -> Float[Tensor, "#batch #kv_heads groups_times_q k"] | None:
    """The sum of mask and score biases, to add to the scores. The mask is repeated for the heads that share keys, once for all
    layers; adding it per head would reshape the scores twice, which torch.export cannot trace for dynamic lengths."""
    batch, kv_heads, rows, keys = scores.shape
    groups = heads // kv_heads

    def repeated() -> Tensor | None:
        bias = mask_bias(call.mask, scores)
        return bias if bias is None or groups == 1 else torch.cat((bias,) * groups, dim=2)

    if not call.biases:
        return call.mask.once(("grouped bias", groups, scores.dtype), repeated)
    # by head, since each head has its own bias: [batch or 1, heads, q, k], then grouped as the scores are
    bias = with_bias(mask_bias(call.mask, scores), call, scores.view(batch, heads, length, keys))
    return None if bias is None else bias.reshape(len(bias), -1, rows, keys)
