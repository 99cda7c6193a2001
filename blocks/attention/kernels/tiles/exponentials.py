"""The softmax of a tile of scores; where the scores are bounded, without their largest.

A softmax subtracts the largest score of each query so that exponentials do not overflow. Scores with a softcap, or of queries
and keys of limited length, need no subtraction. The division by the sums is then left to the products with the values, which
have fewer columns than the scores. The base is 2: with MKL, `torch.exp` takes 40 times as long at masked scores.
"""

from math import e, log2

import torch
from torch import Tensor

from pairform.blocks.attention.kernels.arguments import AttentionCall, Parts

LOG2E = log2(e)
LEAST, MOST = -100, 120
"""Powers of two well within float32: of the smallest exponential, and of the largest product of sums and values."""


def is_bounded(queries: Tensor, keys: Parts, values: Parts, call: AttentionCall) -> bool:
    """Whether exponentials of the scores, and their products with the values, stay within float32: by the softcap, or by the
    norms of queries and keys. All belong to one row of the batch, so that no row depends on others. On a GPU this would
    synchronise, and in float16 the exponentials would overflow.
    """
    if call.biases or keys[0].dtype == torch.float16 or queries.device.type != "cpu":
        return False
    largest = call.softcap
    if largest is None:
        largest = abs(call.scale) * longest(queries) * max(map(longest, keys))
    power, count = largest * LOG2E, sum(part.shape[1] for part in keys)
    return power <= -LEAST and power + log2(count * max(1.0, *map(furthest, values))) <= MOST


def longest(vectors: Tensor) -> float:
    """The largest norm along the last dimension."""
    wide = torch.promote_types(vectors.dtype, torch.float32)
    return float(torch.linalg.vector_norm(vectors, dim=-1, dtype=wide).max()) if vectors.numel() else 0.0


def furthest(numbers: Tensor) -> float:
    """The largest magnitude."""
    return max(map(abs, map(float, torch.aminmax(numbers)))) if numbers.numel() else 0.0


def exponentials(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Powers of two in place, and their sums along the last dimension; not 0 for fully masked queries, so that these get
    weights of 0."""
    weights = scores.exp2_()
    return weights, weights.sum(-1, keepdim=True).clamp_(min=2.0**LEAST)
