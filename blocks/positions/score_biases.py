"""Score biases: positional encodings added to attention scores by the distance between query and key."""

from math import log
from typing import ClassVar, Literal, Self

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from pairform.blocks.context import Context
from pairform.blocks.positions.base import ScoreBias, ScoreBiasSpec
from pairform.registry import PositiveInt, Problem, Sizes, nested


class T5RelativePosition(ScoreBias):
    """A learned bias for each head and bucket of distances (T5, Raffel et al. 2020, arXiv 1910.10683, section 2.1).

    Half of the buckets hold one distance each, the others grow logarithmically up to `max_distance`.
    """

    class Spec(ScoreBiasSpec):
        name: Literal["t5_relative"] = "t5_relative"
        formula: ClassVar[str] = r"""
        $$s^h_{ij} + T_{b(\lvert j - i \rvert), h}$$

        with a learned table $T$ and, for $K$ buckets a direction and the largest distance $D$ (`max_distance`),

        $$b(n) = n \quad \mathrm{for} \quad n \lt \frac{K}{2}, \qquad
        b(n) = \min\left(K - 1, \frac{K}{2} + \left\lfloor \frac{K}{2} \frac{\ln(2n / K)}{\ln(2D / K)} \right\rfloor\right)
        \quad \mathrm{otherwise}$$

        A bidirectional table has $K$ further rows for keys after the query.
        """
        buckets: PositiveInt = Field(default=32, description="Number of buckets.")
        max_distance: PositiveInt = Field(
            default=128, description="Distance in tokens from which all keys share the last bucket."
        )
        bidirectional: bool = Field(
            default=True, description="Use half of the buckets for keys after the query; otherwise those keys share one bucket."
        )
        shared: bool = Field(
            default=False,
            description="Share the table of the nearest earlier layer whose branch of the same name has its own, as in T5 all "
            "layers but the first do.",
        )

        @model_validator(mode="after")
        def _buckets_fit(self) -> Self:
            parts = 4 if self.bidirectional else 2
            single = self.buckets // parts
            if self.buckets % parts:
                raise nested([Problem("buckets", str(self.buckets), f"a number that {parts} divides")])
            if self.max_distance <= single:
                why = (
                    f"of the {self.buckets} buckets, {single} are single distances, as many grow with the logarithm from there"
                )
                remedy = "Or use fewer buckets. With this value transformers fails too, at long distances."
                expected = f"more than {single}: {why} to max_distance"
                raise nested([Problem("max_distance", str(self.max_distance), expected, remedy)])
            return self

    def __init__(self, spec: Spec, sizes: Sizes) -> None:
        super().__init__()
        assert sizes.heads is not None, "given by attention"
        self.spec = spec
        # with `_weight`, torch skips its own initialisation
        self.table = (
            None if spec.shared else nn.Embedding(spec.buckets, sizes.heads, _weight=torch.empty(spec.buckets, sizes.heads))
        )

    def score_bias(self, distances: Int[Tensor, "q k"], context: Context) -> Float[Tensor, "heads q k"]:
        if torch.is_grad_enabled():  # with activation checkpointing each layer recomputes its own bias
            return self.bias(distances)
        key = ("t5_relative", id(self.table), self.spec.max_distance, self.spec.bidirectional, id(distances))
        return context.once(key, lambda: self.bias(distances))

    def bias(self, distances: Int[Tensor, "q k"]) -> Float[Tensor, "heads q k"]:
        assert self.table is not None, "given by the stack"
        bias: Tensor = self.table(self.buckets(distances))
        return bias.permute(2, 0, 1)

    def share(self, earlier: Self | None) -> None:
        if self.spec.shared:
            assert earlier is not None, "checked by the spec"
            self.table = earlier.table

    def buckets(self, distances: Int[Tensor, "q k"]) -> Int[Tensor, "q k"]:
        """The bucket of each distance, a row of the table."""
        count, first = self.spec.buckets, torch.zeros_like(distances)
        if self.spec.bidirectional:
            count //= 2
            # keys after the query have the second half of the buckets
            first = (distances > 0).long() * count
            distances = distances.abs()
        else:
            distances = (-distances).clamp(min=0)
        # from here on as in T5: logarithm in float32, truncated
        single = count // 2
        growth = torch.log(distances.clamp(min=1).float() / single) / log(self.spec.max_distance / single)
        far = (single + (growth * (count - single)).long()).clamp(max=count - 1)
        return first + torch.where(distances < single, distances, far)


class ALiBi(ScoreBias):
    """A bias that decreases linearly with distance, with a fixed slope per head (Press et al. 2022, arXiv 2108.12409,
    section 3).

    Keys after the query, if the mask allows them, are biased by their distance too.
    """

    class Spec(ScoreBiasSpec):
        name: Literal["alibi"] = "alibi"
        formula: ClassVar[str] = r"""
        $$s^h_{ij} - m_h \lvert i - j \rvert, \qquad m_h = 2^{-8h/H}$$

        for heads $h = 1, \dots, H$, where $H$ is a power of two. Other numbers of heads take slopes in between.
        """

    def __init__(self, spec: Spec, sizes: Sizes) -> None:
        super().__init__()
        assert sizes.heads is not None, "given by attention"
        self.spec = spec
        self.heads = sizes.heads

    def score_bias(self, distances: Int[Tensor, "q k"], context: Context) -> Float[Tensor, "heads q k"]:
        return -distances.abs() * slopes(self.heads, distances.device)[:, None, None]


def slopes(heads: int, device: torch.device | None = None) -> Float[Tensor, " heads"]:
    """The slopes `2 ** (-8 i / heads)` for i from 1. If `heads` is not a power of two: those of the next lower power, then
    every second slope of the next higher one.

    Computed on the device, since a CUDA graph cannot contain a copy from the host.
    """
    whole = 1 << heads.bit_length() - 1
    powers = torch.arange(1, whole + 1, dtype=torch.float64, device=device) * (-8 / whole)
    # every second exponent of the next higher power: -8 (2 i + 1) / (2 whole) for i from 0
    between = torch.arange(heads - whole, dtype=torch.float64, device=device) * (-8 / whole) - 4 / whole
    return torch.cat((powers, between)).exp2().float()
