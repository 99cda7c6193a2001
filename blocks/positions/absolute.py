"""Absolute positions, added to a stack's embeddings before the first layer."""

from collections.abc import Iterator
from typing import Annotated, Literal

import torch
from einops import rearrange
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from pairform.registry import BlockSpec, InputError, PositiveFloat, PositiveInt, Problem, Sizes


class SinusoidalPosition(nn.Module):
    """Sines on even channels, cosines on odd ones, of wavelengths from 2 pi to `theta` times that (Vaswani et al. 2017, 3.5).

    Padding has position 0.
    """

    class Spec(BlockSpec):
        name: Literal["sinusoidal"] = "sinusoidal"
        theta: PositiveFloat = Field(default=10000.0, description="Ratio of the longest to the shortest wavelength.")

        def check(self, sizes: Sizes) -> Iterator[Problem]:
            if sizes.width % 2:
                yield Problem("", f"sinusoidal positions in a width of {sizes.width}", "an even width")

    def __init__(self, spec: Spec, sizes: Sizes) -> None:
        super().__init__()
        self.theta, self.width = spec.theta, sizes.width

    def forward(
        self, hidden: Float[Tensor, "batch length width"], positions: Int[Tensor, "batch length"]
    ) -> Float[Tensor, "batch length width"]:
        steps = torch.arange(0, self.width, 2, dtype=torch.float32, device=hidden.device)
        # [batch, length, width / 2]; padding on the left has negative positions
        angles = positions.clamp(min=0)[..., None].float() / self.theta ** (steps / self.width)
        waves = rearrange(torch.stack((angles.sin(), angles.cos()), -1), "b l pairs two -> b l (pairs two)")
        return hidden + waves.to(hidden.dtype)


class LearnedPosition(nn.Module):
    """A learned vector for each position (Gehring et al. 2017, arXiv 1705.03122, section 3.1; GPT-2).

    A sequence longer than `length - offset` is an `InputError`; on a GPU it is a failed device-side assertion instead. Padding
    on the left has position 0.
    """

    class Spec(BlockSpec):
        name: Literal["learned"] = "learned"
        length: PositiveInt = Field(
            examples=[512], description="Rows of the table: the longest sequence and the rows before the first position's."
        )
        offset: Annotated[int, Field(ge=0)] = Field(
            default=0,
            description="Row of the first position; earlier rows are not read. In RoBERTa, 1 more than the padding token's id.",
        )

        def check(self, sizes: Sizes) -> Iterator[Problem]:
            if self.offset >= self.length:
                yield Problem("offset", str(self.offset), f"less than the table's length of {self.length}")

    def __init__(self, spec: Spec, sizes: Sizes) -> None:
        super().__init__()
        self.offset = spec.offset
        self.weight = nn.Parameter(torch.empty(spec.length, sizes.width))

    def forward(
        self, hidden: Float[Tensor, "batch length width"], positions: Int[Tensor, "batch length"]
    ) -> Float[Tensor, "batch length width"]:
        # positions on the meta device have no values; there they are assumed to count from 0
        if not torch.compiler.is_compiling() and positions.device.type in ("cpu", "meta"):
            length = len(self.weight) - self.offset
            last = positions.shape[1] - 1 if positions.is_meta else int(positions.max())
            if last >= length:
                raise InputError(Problem("positions", f"the position {last}", f"positions below {length}, the learned ones"))
        return hidden + functional.embedding(positions.clamp(min=0) + self.offset, self.weight)
