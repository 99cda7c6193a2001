"""The absence of a positional encoding, and base classes: of score biases, and of specs with a positional encoding."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from jaxtyping import Float, Int
from torch import Tensor, nn

from pairform.blocks.context import Context
from pairform.registry import BlockSpec, Problem, Sizes


class NoPosition(nn.Module):
    """No positional encoding: only the mask makes attention depend on the order of tokens (NoPE, Kazemnejad et al. 2023)."""

    class Spec(BlockSpec):
        name: Literal["none"] = "none"
        formula: ClassVar[str] = r"""
        $$y = x$$

        for every query and key $x$.
        """

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


class PositionedSpec(BlockSpec):
    """Base of the specs of blocks that encode positions in their heads."""

    if TYPE_CHECKING:  # subclasses declare these fields, in an order of their own
        heads: int
        head_dim: int | None
        position: BlockSpec

    def position_sizes(self, sizes: Sizes) -> Sizes:
        """The sizes that the positional encoding is built with: as `width` the head dimension, and the number of heads."""
        return Sizes(self.head_dim or sizes.width // self.heads, depth=sizes.depth, layer=sizes.layer, heads=self.heads)

    def check(self, sizes: Sizes) -> Iterator[Problem]:
        yield from super().check(sizes)
        yield from (problem.inside("position") for problem in self.position.check(self.position_sizes(sizes)))

    def sited(self, sizes: Sizes) -> dict[str, Any]:
        position = self.position.sited(self.position_sizes(sizes))
        return {"position": position} if position else {}
