"""Rotary position embedding (RoPE) of queries and keys, both `[batch, heads, length, head_dim]`."""

from collections.abc import Iterator
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from pairform.blocks.context import Context
from pairform.blocks.positions.rotary_scaling import (
    DefaultScaling,
    DynamicScaling,
    Fraction,
    LongRopeScaling,
    Scaling,
    YarnScaling,
)
from pairform.registry import BlockSpec, PositiveFloat, Problem, Sizes


class RotaryPosition(nn.Module):
    """Rotary position embedding (Su et al. 2021, arXiv 2104.09864). Channel i is paired with channel i + channels / 2, as in
    Gemma."""

    class Spec(BlockSpec):
        name: Literal["rope"] = "rope"
        formula: ClassVar[str] = r"""
        $$y_i = x_i \cos(p \omega_i) - x_{i + c/2} \sin(p \omega_i)$$

        $$y_{i + c/2} = x_{i + c/2} \cos(p \omega_i) + x_i \sin(p \omega_i), \qquad \omega_i = \theta^{-2i/c}$$

        for a query or key $x$ at position $p$ with $c$ rotated channels, and $0 \le i \lt c/2$. The product of a rotated query
        and a rotated key depends on their distance only. A `scaling` changes the frequencies $\omega_i$.
        """
        theta: PositiveFloat = Field(
            default=10000.0, description="Base of the rotation frequencies `theta ** (-2 i / channels)`."
        )
        fraction: Fraction = Field(
            default=1.0,
            description="Fraction of each head's channels that is rotated, from the first on; the rest has no position "
            "(GPT-NeoX, arXiv 2204.06745, section 2.1.1).",
        )
        scaling: Scaling = Field(
            default=DefaultScaling(),
            description="Scaling of the frequencies, for sequences longer than those in training.",
        )

        def check(self, sizes: Sizes) -> Iterator[Problem]:
            channels = self.channels(sizes)
            least = 4 if isinstance(self.scaling, DynamicScaling) else 2
            if channels % 2 or channels < least:
                of = "" if self.fraction == 1 else f"{self.fraction} of "
                expected = "an even head_dim" if self.fraction == 1 else "an even number of channels"
                yield Problem("", f"rope over {of}a head_dim of {sizes.width}", f"{expected}, {least} or more")
            if isinstance(self.scaling, YarnScaling) and self.theta <= 1:
                yield Problem("theta", f"{self.theta} with yarn", "more than 1, so that the frequencies of the pairs differ")

            if isinstance(self.scaling, LongRopeScaling):
                for name, divisors in {"short": self.scaling.short, "long": self.scaling.long}.items():
                    if len(divisors) != channels // 2:
                        expected = f"{channels // 2}: one for each pair of channels"
                        yield Problem(f"scaling.{name}", f"{len(divisors)} numbers", expected)

        def channels(self, sizes: Sizes) -> int:
            """The number of channels of a head that are rotated."""
            return int(sizes.width * self.fraction)

    def __init__(self, spec: Spec, sizes: Sizes) -> None:
        super().__init__()
        self.spec = spec
        self.channels = spec.channels(sizes)
        self.key = ("rope", spec.model_dump_json(), self.channels)

    def forward(
        self, heads: Float[Tensor, "batch heads length head_dim"], context: Context
    ) -> Float[Tensor, "batch heads length head_dim"]:
        # once per pass for all layers with an equal spec, for queries and keys
        cos, sin = context.once((*self.key, heads.dtype), lambda: self._tables(heads, context))
        whole = self.channels == heads.shape[-1]
        rotated = heads if whole else heads[..., : self.channels]
        swapped = rotated.roll(self.channels // 2, -1)
        # (first, second) -> (first cos - second sin, second cos + first sin), in place where a tensor has no other user
        rotated = (rotated * cos).add_(swapped.mul_(sin))
        return rotated if whole else torch.cat((rotated, heads[..., self.channels :]), dim=-1)

    def _tables(self, heads: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """Cosines, and sines with the sign of each channel's product, `[batch, 1, length, channels]`, computed in float32 and
        rounded to the dtype of `heads`."""
        scaling = self.spec.scaling
        positions = context.positions
        lengths = context.lengths if scaling.by_length else None
        frequencies = scaling.frequencies(self.spec.theta, self.channels, positions.device, lengths)
        # [batch, 1, length, pairs]; frequencies that depend on lengths are [batch, 1 or length, pairs], others [pairs]
        angles = positions[:, None, :, None].float() * (frequencies if lengths is None else frequencies[:, None])
        factor = scaling.attention_factor
        cos, sin = (angles.cos(), angles.sin()) if factor == 1.0 else (angles.cos() * factor, angles.sin() * factor)
        # both channels of a pair have the same angle; the second one is subtracted from the first
        # in one tensor: a compiler would compute the cosines again for each head of each layer
        cosines, sines = torch.cat((cos, cos, -sin, sin), dim=-1).to(heads.dtype).chunk(2, dim=-1)
        return cosines, sines
