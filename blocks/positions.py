"""Positional encodings that attention applies to its queries and keys, both `[batch, heads, length, head_dim]`."""

from collections.abc import Iterator
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from pairform.blocks.context import Context
from pairform.registry import BlockSpec, PositiveFloat, Problem, Sizes, Spec


class DefaultScaling(Spec):
    """Frequencies as they are."""

    name: Literal["default"] = "default"


class LinearScaling(Spec):
    """Every frequency divided by `factor` (position interpolation, Chen et al. 2023, arXiv 2306.15595)."""

    name: Literal["linear"] = "linear"
    factor: PositiveFloat


class RotaryPosition(nn.Module):
    """Rotary position embedding (Su et al. 2021, arXiv 2104.09864), halves rotated against each other as in Gemma."""

    class Spec(BlockSpec):
        name: Literal["rope"] = "rope"
        theta: PositiveFloat = 10000.0
        scaling: Annotated[DefaultScaling | LinearScaling, Field(discriminator="name")] = DefaultScaling()

        def check(self, sizes: Sizes) -> Iterator[Problem]:
            if sizes.width % 2:
                yield Problem("", f"rope over a head_dim of {sizes.width}", "an even head_dim")

    def __init__(self, spec: Spec, sizes: Sizes) -> None:
        super().__init__()
        self.spec = spec
        self.head_dim = sizes.width
        scaling = spec.scaling
        self.key = ("rope", spec.theta, scaling.factor if isinstance(scaling, LinearScaling) else 1.0, self.head_dim)

    def forward(
        self, heads: Float[Tensor, "batch heads length head_dim"], context: Context
    ) -> Float[Tensor, "batch heads length head_dim"]:
        cos, sin = context.once((*self.key, heads.dtype), lambda: self._tables(heads, context))
        first, second = heads.chunk(2, dim=-1)
        return heads * cos + torch.cat((-second, first), dim=-1) * sin

    def _tables(self, heads: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """Cosines and sines `[batch, 1, length, head_dim]`, computed in float32."""
        steps = torch.arange(0, self.head_dim, 2, dtype=torch.float32, device=heads.device)
        frequencies = 1.0 / (self.spec.theta ** (steps / self.head_dim))
        if isinstance(self.spec.scaling, LinearScaling):
            frequencies = frequencies / self.spec.scaling.factor
        angles = context.positions[:, None, :, None].float() * frequencies
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos().to(heads.dtype), angles.sin().to(heads.dtype)


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
