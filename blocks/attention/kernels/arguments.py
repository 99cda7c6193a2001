"""The arguments and the output of attention kernels."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from jaxtyping import Float
from torch import Tensor

from pairform.blocks.attention.masks import JoinedMask

FEWEST = 32
"""Rows of the smallest tile of scores: queries times the heads that share a key. It does not pay to split fewer."""


@dataclass(slots=True)
class AttentionCall:
    """The arguments of a kernel besides queries, keys and values. With a softcap, scores are `softcap * tanh(q k scale /
    softcap)`.

    mask:    over the concatenated keys of all parts.
    dropout: the rate on attention weights, 0 outside training.
    weights: also return the attention weights.
    biases:  for each part of the keys the score bias by distance (see `by_distance`), or None; empty if no part has one.
    """

    mask: JoinedMask
    scale: float
    softcap: float | None = None
    dropout: float = 0.0
    weights: bool = False
    biases: tuple[Float[Tensor, "heads distances"] | None, ...] = ()


Output: TypeAlias = tuple[Tensor, Tensor | None]
"""The output, `[batch, heads, q, head_dim]`, and the attention weights, `[batch, heads, q, k]`, if requested."""
Parts: TypeAlias = tuple[Tensor, ...]
"""Keys or values of each sequence under one softmax (own tokens, a source), `[batch, kv_heads, k, head_dim]` each."""
Run: TypeAlias = Callable[[Tensor, Parts, Parts, AttentionCall], Output]
