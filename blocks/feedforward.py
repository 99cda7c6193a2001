"""Feed-forward blocks, from `[batch, length, width]` to the same shape."""

from collections.abc import Callable, Mapping
from typing import Annotated, ClassVar, Literal, Self

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from pairform.blocks.context import Context
from pairform.blocks.functional.blocked_ops import by_rows
from pairform.blocks.functional.gelu import gelu_tanh
from pairform.blocks.functional.linear import Linear
from pairform.registry import BlockSpec, PositiveInt, Probability, Scales, Sizes

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "gelu_tanh": gelu_tanh,
    "silu": functional.silu,
    "relu": functional.relu,
    "relu_squared": lambda tensor: functional.relu(tensor).square(),  # So et al. 2021, arXiv 2109.08668
    "sigmoid": torch.sigmoid,  # with `gated`: the original GLU
}
Activation = Literal["gelu", "gelu_tanh", "silu", "relu", "relu_squared", "sigmoid"]


class FeedForwardSpec(BlockSpec):
    """Options of every dense feed-forward block."""

    hidden: Annotated[PositiveInt, Scales("width")] = Field(examples=[2048], description="Inner width.")
    activation: Activation = Field(
        default="gelu_tanh",
        description="Activation function. gelu_tanh: GELU's tanh approximation; relu_squared: arXiv 2109.08668.",
    )
    bias: bool = Field(default=False, description="Add a learned bias to each projection.")
    dropout: Probability = Field(default=0.0, description="Dropout rate on the inner activations.")
    wide_output: bool = Field(
        default=False,
        description="In float16, keep the last projection and its output in float32 and clamp the hidden states around "
        "attention to float16's range, as transformers does for T5, whose values exceed it.",
    )


class WideLinear(Linear):
    """A `Linear` that stays in float32 in a float16 model: conversion to float16 leaves its weights in float32."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        def widened(tensor: Tensor) -> Tensor:
            converted = fn(tensor)
            # from the values before they were rounded to float16
            return tensor.to(converted.device, torch.float32) if converted.dtype == torch.float16 else converted

        super()._apply(widened, recurse)  # type: ignore[no-untyped-call]
        return self


class DenseFeedForward(nn.Module):
    """Base of the dense blocks: their projections, and the way back to the width. gated: there is a projection of gates."""

    gated: ClassVar[bool] = False

    def __init__(self, spec: FeedForwardSpec, sizes: Sizes) -> None:
        super().__init__()
        self.spec = spec
        if self.gated:
            self.gate_proj = Linear(sizes.width, spec.hidden, bias=spec.bias)
        self.up_proj = Linear(sizes.width, spec.hidden, bias=spec.bias)
        self.down_proj = (WideLinear if spec.wide_output else Linear)(spec.hidden, sizes.width, bias=spec.bias)

    def down(self, inner: Float[Tensor, "batch length hidden"]) -> Float[Tensor, "batch length width"]:
        """Dropout on the inner activations, and their projection back to the width."""
        if self.spec.dropout and self.training:
            inner = functional.dropout(inner, self.spec.dropout)
        projected: Tensor = self.down_proj(inner.to(self.down_proj.weight.dtype) if self.spec.wide_output else inner)
        return projected


class GatedFeedForward(DenseFeedForward):
    """`down(activation(gate(x)) * up(x))` (Shazeer 2020, arXiv 2002.05202): GeGLU with gelu, SwiGLU with silu."""

    class Spec(FeedForwardSpec):
        name: Literal["gated"] = "gated"
        formula: ClassVar[str] = r"""
        $$y = W_{\mathrm{down}} \left( \phi(W_{\mathrm{gate}} x) \odot W_{\mathrm{up}} x \right)$$

        where $\phi$ is the activation function.
        """

    gated = True

    def forward(self, hidden: Float[Tensor, "batch length width"], context: Context) -> Float[Tensor, "batch length width"]:
        activation = ACTIVATIONS[self.spec.activation]
        return self.down(by_rows(lambda gate, up: activation(gate) * up, self.gate_proj(hidden), self.up_proj(hidden)))


class FeedForward(DenseFeedForward):
    """`down(activation(up(x)))`, the plain MLP (Vaswani et al. 2017, section 3.3)."""

    class Spec(FeedForwardSpec):
        name: Literal["mlp"] = "mlp"
        formula: ClassVar[str] = r"""
        $$y = W_{\mathrm{down}} \phi(W_{\mathrm{up}} x)$$

        where $\phi$ is the activation function.
        """

    def forward(self, hidden: Float[Tensor, "batch length width"], context: Context) -> Float[Tensor, "batch length width"]:
        return self.down(ACTIVATIONS[self.spec.activation](self.up_proj(hidden)))
