"""Absolute positions, added to a stack's embeddings before the first layer."""

from collections.abc import Iterator
from math import log
from typing import Annotated, ClassVar, Literal

import torch
from einops import rearrange
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from pairform.registry import BlockSpec, InputError, PositiveFloat, PositiveInt, Problem, Sizes


class SinusoidalPosition(nn.Module):
    """Sines and cosines of wavelengths from 2 pi to `theta` times that (Vaswani et al. 2017, 3.5).

    Padding has the position of the first token.
    """

    class Spec(BlockSpec):
        name: Literal["sinusoidal"] = "sinusoidal"
        formula: ClassVar[str] = r"""
        $$y_{p, 2i} = x_{p, 2i} + \sin(p \theta^{-2i/d}), \qquad y_{p, 2i + 1} = x_{p, 2i + 1} + \cos(p \theta^{-2i/d})$$

        for position $p$ and $0 \le i \lt d/2$, with the layout `interleaved`.
        """
        theta: PositiveFloat = Field(default=10000.0, description="Ratio of the longest to the shortest wavelength.")
        layout: Literal["interleaved", "halves"] = Field(
            default="interleaved",
            description="interleaved: sines on even channels and cosines on odd ones, as in the paper; halves: the sines of "
            "all wavelengths, then the cosines, as in Marian and fairseq.",
        )
        endpoint: bool = Field(
            default=False,
            description="Let wavelength i of n be `theta ** (i / (n - 1))` instead of `theta ** (i / n)`, so that the last one "
            "is `theta` times the first (tensor2tensor, fairseq).",
        )
        offset: Annotated[int, Field(ge=0)] = Field(
            default=0, description="Position of the first token; fairseq counts from the padding token's id plus 1."
        )

        def check(self, sizes: Sizes) -> Iterator[Problem]:
            least = 4 if self.endpoint else 2
            if sizes.width % 2 or sizes.width < least:
                yield Problem("", f"sinusoidal positions in a width of {sizes.width}", f"an even width, {least} or more")

    def __init__(self, spec: Spec, sizes: Sizes) -> None:
        super().__init__()
        self.spec, self.width = spec, sizes.width

    def forward(
        self, hidden: Float[Tensor, "batch length width"], positions: Int[Tensor, "batch length"]
    ) -> Float[Tensor, "batch length width"]:
        # padding on the left has negative positions
        return hidden + self.waves(positions.clamp(min=0)).to(hidden.dtype)

    def waves(self, positions: Int[Tensor, "... length"]) -> Float[Tensor, "... length width"]:
        """What is added at each position.

        Angles are computed in float64, since float32 would round those of later positions by more than a sine's precision;
        in float32 with `endpoint`, as fairseq computes its table, and on devices without float64.
        """
        dtype = torch.float32 if self.spec.endpoint or positions.device.type == "mps" else torch.float64
        pairs = self.width // 2
        steps = torch.arange(pairs, dtype=dtype, device=positions.device)
        frequencies = torch.exp(steps * (-log(self.spec.theta) / (pairs - 1 if self.spec.endpoint else pairs)))
        # [..., length, width / 2]
        angles = (positions + self.spec.offset)[..., None].to(dtype) * frequencies
        if self.spec.layout == "halves":
            return torch.cat((angles.sin(), angles.cos()), dim=-1)
        return rearrange(torch.stack((angles.sin(), angles.cos()), -1), "... pairs two -> ... (pairs two)")


class LearnedPosition(nn.Module):
    """A learned vector for each position (Gehring et al. 2017, arXiv 1705.03122, section 3.1; GPT-2).

    A sequence longer than `length - offset` is an `InputError`; on a GPU it is a failed device-side assertion instead. Padding
    on the left has position 0.
    """

    class Spec(BlockSpec):
        name: Literal["learned"] = "learned"
        formula: ClassVar[str] = r"""
        $$y_p = x_p + E_{p + o}$$

        for position $p$, with a learned table $E$ and the offset $o$.
        """
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
