"""What attention needs to know of positions: the one that does nothing, and the base of those that bias scores."""

from collections.abc import Iterable
from typing import Literal, Self

from jaxtyping import Float, Int
from torch import Tensor, nn

from pairform.blocks.context import Context
from pairform.registry import BlockSpec, Sizes


class NoPosition(nn.Module):
    """No positional encoding: attention sees a set, ordered only by its mask (NoPE, Kazemnejad et al. 2023)."""

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
    """Spec of a position that adds a bias to the scores and leaves queries and keys as they are."""


class ScoreBias(nn.Module):
    """Base of such positions. The bias is added after scale and softcap."""

    def forward(
        self, heads: Float[Tensor, "batch heads length head_dim"], context: Context
    ) -> Float[Tensor, "batch heads length head_dim"]:
        return heads

    def score_bias(self, distances: Int[Tensor, "q k"], context: Context) -> Float[Tensor, "heads q k"]:
        """The bias by distance, the position of the key minus that of the query."""
        raise NotImplementedError

    def share(self, earlier: Self | None) -> None:
        """Take over parameters of the position of the nearest earlier layer, in the branch of the same name."""


def share_parameters(blocks: Iterable[tuple[str, nn.Module]]) -> None:
    """Let the positions of a stack share parameters. `blocks`: its attention blocks with their branches' names, in order."""
    earlier: dict[tuple[str, type[ScoreBias]], ScoreBias] = {}
    for branch, block in blocks:
        position = getattr(block, "position", None)
        if isinstance(position, ScoreBias):
            key = (branch, type(position))
            position.share(earlier.get(key))
            earlier[key] = position
