"""The absence of a positional encoding, and the base class of score biases."""

from collections.abc import Iterable
from typing import Literal, Self

from jaxtyping import Float, Int
from torch import Tensor, nn

from pairform.blocks.context import Context
from pairform.registry import BlockSpec, Sizes


class NoPosition(nn.Module):
    """No positional encoding: only the mask makes attention depend on the order of tokens (NoPE, Kazemnejad et al. 2023)."""

    class Spec(BlockSpec):
        name: Literal["none"] = "none"

    def __init__(self, spec: Spec, sizes: Sizes) -> None:
        super().__init__()
        self.spec = spec

    def forward(
        self, heads: Float[Tensor, "batch heads length head_dim"], context: Context
    ) -> Float[Tensor, "batch heads length head_dim"]:
        return heads


class ScoreBiasSpec(BlockSpec):
    """Base of the specs of score biases, which leave queries and keys unchanged."""


class ScoreBias(nn.Module):
    """Base of the positional encodings that add a bias to attention scores, after scale and softcap."""

    def forward(
        self, heads: Float[Tensor, "batch heads length head_dim"], context: Context
    ) -> Float[Tensor, "batch heads length head_dim"]:
        return heads

    def score_bias(self, distances: Int[Tensor, "q k"], context: Context) -> Float[Tensor, "heads q k"]:
        """The bias by distance, the position of the key minus that of the query, `[q, k]`."""
        raise NotImplementedError

    def share(self, earlier: Self | None) -> None:
        """Share parameters with the position of the nearest earlier layer, in the branch of the same name."""


def share_parameters(blocks: Iterable[tuple[str, nn.Module]]) -> None:
    """Let the positions of a stack share parameters.

    blocks: branch name and block of each branch of the stack, in order.
    """
    earlier: dict[tuple[str, type[ScoreBias]], ScoreBias] = {}
    for branch, block in blocks:
        position = getattr(block, "position", None)
        if isinstance(position, ScoreBias):
            key = (branch, type(position))
            position.share(earlier.get(key))
            earlier[key] = position
