"""What every attention kernel is given, and what several of them share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from jaxtyping import Float
from torch import Tensor

from pairform.blocks.attention.masks import JoinedMask

FEWEST = 32
"""Queries in the smallest tile of scores, times those that share a key: fewer are not worth cutting."""


@dataclass(slots=True)
class AttentionCall:
    """One call of a kernel beside its tensors. Scores are `softcap * tanh(q k scale / softcap)` where softcap is set.

    weights: whether attention weights are asked for as an output.
    biases:  what is added to the scores, by part: `by_distance` reads it; None adds nothing. Empty where no part has any.
    """

    mask: JoinedMask
    scale: float
    softcap: float | None = None
    dropout: float = 0.0
    weights: bool = False
    biases: tuple[Float[Tensor, "heads distances"] | None, ...] = ()


Answer: TypeAlias = tuple[Tensor, Tensor | None]
"""The output, `[batch, heads, q, head_dim]`, and where they were asked for the weights, `[batch, heads, q, k]`."""
Parts: TypeAlias = tuple[Tensor, ...]
"""Keys or values of the sequences that are read as one (own tokens, a source), `[batch, kv_heads, k, head_dim]` each."""
Run: TypeAlias = Callable[[Tensor, Parts, Parts, AttentionCall], Answer]
