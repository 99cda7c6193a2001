"""Residual connections: `forward(hidden, added)` combines hidden state and branch output, both `[batch, length, width]`.

A spec with `keeps = True` declares that the hidden state does not change if a branch adds zeros.
"""

from collections.abc import Collection
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from pairform.blocks.functional.initializers import Constant, Initial, Normal
from pairform.blocks.functional.linear import linear
from pairform.registry import BlockSpec, PositiveFloat, Sizes

Finite = Annotated[float, Field(allow_inf_nan=False)]


class Add(nn.Module):
    """`x + f(x)` (He et al. 2015, arXiv 1512.03385, section 3.2)."""

    class Spec(BlockSpec):
        name: Literal["add"] = "add"
        formula: ClassVar[str] = r"$$y = x + f(x)$$"
        keeps: ClassVar[bool] = True

    def __init__(self, spec: Spec, sizes: Sizes) -> None:
        super().__init__()
        self.spec = spec

    def forward(
        self, hidden: Float[Tensor, "batch length width"], added: Float[Tensor, "batch length width"]
    ) -> Float[Tensor, "batch length width"]:
        return hidden + added


class Scaled(nn.Module):
    """`x + scale * f(x)`, with a fixed or a learned scale."""

    class Spec(BlockSpec):
        name: Literal["scaled"] = "scaled"
        formula: ClassVar[str] = r"""
        $$y = x + s \odot f(x)$$

        where $s$ is one number, or with `learned: "vector"` one for each channel.
        """
        scale: Finite = Field(default=1.0, description="The fixed scale, or the initial value of a learned one.")
        learned: Literal["scalar", "vector"] | None = Field(
            default=None,
            description="Learn one scale (`scalar`: ReZero with scale 0; Bachlechner et al. 2020, arXiv 2003.04887, section 3) "
            "or one per channel (`vector`: LayerScale with scale 1e-4; Touvron et al. 2021, arXiv 2103.17239, section 2). By "
            "default the scale is fixed.",
        )
        keeps: ClassVar[bool] = True

    def __init__(self, spec: Spec, sizes: Sizes) -> None:
        super().__init__()
        self.spec = spec
        size = sizes.width if spec.learned == "vector" else 1
        self.weight = nn.Parameter(torch.empty(size)) if spec.learned else None

    def initial(self, parameter: str, spread: float) -> Initial:
        return Constant(value=self.spec.scale)

    def forward(
        self, hidden: Float[Tensor, "batch length width"], added: Float[Tensor, "batch length width"]
    ) -> Float[Tensor, "batch length width"]:
        return hidden + added * (self.spec.scale if self.weight is None else self.weight)


class Gated(nn.Module):
    """`(1 - g) * x + g * f(x)` with `g = sigmoid(W x + b)` for each channel (Highway; Srivastava et al. 2015, arXiv 1505.00387,
    section 2)."""

    class Spec(BlockSpec):
        name: Literal["gated"] = "gated"
        formula: ClassVar[str] = r"$$y = (1 - g) \odot x + g \odot f(x), \qquad g = \sigma(W x + b)$$"
        bias: Finite = Field(
            default=-2.0, description="Initial value of b. Below zero, a deep stack starts near the identity (section 2.2)."
        )

    def __init__(self, spec: Spec, sizes: Sizes) -> None:
        super().__init__()
        self.spec = spec
        self.weight = nn.Parameter(torch.empty(sizes.width, sizes.width))
        self.bias = nn.Parameter(torch.empty(sizes.width))

    def initial(self, parameter: str, spread: float) -> Initial:
        return Constant(value=self.spec.bias) if parameter == "bias" else Normal(std=spread)

    def forward(
        self, hidden: Float[Tensor, "batch length width"], added: Float[Tensor, "batch length width"]
    ) -> Float[Tensor, "batch length width"]:
        gate = torch.sigmoid(linear(hidden, self.weight, self.bias))
        dtype = torch.promote_types(hidden.dtype, added.dtype)  # under autocast they differ, which lerp does not allow
        # lerp(x, f, g) = x + g (f - x) = (1 - g) x + g f
        return torch.lerp(hidden.to(dtype), added.to(dtype), gate.to(dtype))


class DeepNorm(nn.Module):
    """`alpha * x + f(x)` with post-norm, where the initial weights of the branch are scaled by beta (Wang et al. 2022, arXiv
    2203.00555, figure 2).

    A single stack of M layers has alpha (2M)^(1/4) and beta (8M)^(-1/4), a decoder with an encoder (3M)^(1/4) and
    (12M)^(-1/4), and that encoder, of N layers, 0.81 (N^4 M)^(1/16) and 0.87 (N^4 M)^(-1/16). Beta multiplies the model's
    `initializer_range` for all linear layers except those of queries and keys; in the paper it is the gain of Xavier
    initialisation.
    """

    class Spec(BlockSpec):
        name: Literal["deepnorm"] = "deepnorm"
        formula: ClassVar[str] = r"""
        $$y = \alpha x + f(x)$$

        The layer then normalises $y$. Constants of an encoder-decoder with $N$ encoder layers and $M$ decoder layers:

        $$\alpha_{\mathrm{enc}} = 0.81 (N^4 M)^{1/16}, \qquad \beta_{\mathrm{enc}} = 0.87 (N^4 M)^{-1/16}, \qquad
        \alpha_{\mathrm{dec}} = (3M)^{1/4}, \qquad \beta_{\mathrm{dec}} = (12M)^{-1/4}$$
        """
        alpha: PositiveFloat | None = Field(
            default=None, description="Weight of the hidden states. By default computed from the depths, as above."
        )
        beta: PositiveFloat | None = Field(
            default=None,
            description="Factor on the standard deviation of the branch's initial weights. By default computed from the "
            "depths, as above.",
        )
        placements: ClassVar[tuple[str, ...]] = ("post",)

        def sited(self, sizes: Sizes) -> dict[str, Any]:
            factors = zip(("alpha", "beta"), deepnorm(sizes), strict=True)
            return {field: value for field, value in factors if getattr(self, field) is None}

    def __init__(self, spec: Spec, sizes: Sizes) -> None:
        super().__init__()
        self.spec = spec
        alpha, beta = deepnorm(sizes)
        self.alpha, self.beta = spec.alpha or alpha, spec.beta or beta

    def prepare(self, block: nn.Module) -> None:
        """Scale the initial weights of a branch's block by beta, except those that only affect attention scores."""
        scored: Collection[str] = getattr(block, "scored", ())
        for name, module in block.named_modules():
            if isinstance(module, nn.Linear) and name not in scored:
                module.initial_scale = self.beta  # type: ignore[assignment]  # read by initial_of

    def forward(
        self, hidden: Float[Tensor, "batch length width"], added: Float[Tensor, "batch length width"]
    ) -> Float[Tensor, "batch length width"]:
        return self.alpha * hidden + added


def deepnorm(sizes: Sizes) -> tuple[float, float]:
    """Alpha and beta of a stack, by its depth and, if there are two stacks, by the depth of the other."""
    if sizes.decoder_depth is not None:
        product = sizes.depth**4 * sizes.decoder_depth
        return 0.81 * product ** (1 / 16), 0.87 * product ** (-1 / 16)
    branches = 2 if sizes.source_width is None else 3
    return float((branches * sizes.depth) ** 0.25), float((4 * branches * sizes.depth) ** -0.25)
