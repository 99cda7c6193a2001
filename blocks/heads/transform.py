"""A dense layer of the width, an activation and a norm between a stack and a head's projection."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from pairform.blocks.feedforward import ACTIVATIONS, Activation
from pairform.blocks.functional.linear import Linear
from pairform.registry import BlockSpec, PositiveInt, Problem, Scales, Sizes, Slot, Spec, build_block

TRANSFORM_ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    **ACTIVATIONS,
    "tanh": torch.tanh,
    "identity": lambda rows: rows,
}


class TransformSpec(Spec):
    """A dense layer of the stack's width, its activation, and a norm."""

    activation: Activation | Literal["tanh", "identity"] = Field(
        default="gelu", description="Activation function after the dense layer."
    )
    bias: bool = Field(default=True, description="Add a learned bias to the dense layer.")
    norm: Annotated[BlockSpec, Slot("norm")] | None = Field(
        default=None, description="Norm after the activation. Default: none."
    )

    def check(self, sizes: Sizes) -> Iterator[Problem]:
        if self.norm is not None:
            sizes = replace(sizes, width=self.out(sizes))
            yield from (problem.inside("transform.norm") for problem in self.norm.check(sizes))

    def out(self, sizes: Sizes) -> int:
        """The width of the output."""
        return sizes.width


class WideTransformSpec(TransformSpec):
    """A dense layer to any width, its activation, and a norm."""

    width: Annotated[PositiveInt | None, Scales("width")] = Field(
        default=None, description="Width of the dense layer's output. Default: the stack's width."
    )

    def out(self, sizes: Sizes) -> int:
        return self.width or sizes.width


class Transform(nn.Module):
    """`norm(activation(dense(hidden)))`."""

    def __init__(self, spec: TransformSpec, sizes: Sizes) -> None:
        super().__init__()
        out = spec.out(sizes)
        self.dense = Linear(sizes.width, out, bias=spec.bias)
        self.activation = TRANSFORM_ACTIVATIONS[spec.activation]
        self.norm = None if spec.norm is None else build_block(spec.norm, replace(sizes, width=out), "norm")

    def forward(self, hidden: Float[Tensor, "... width"]) -> Float[Tensor, "... width"]:
        hidden = self.activation(self.dense(hidden))
        return hidden if self.norm is None else self.norm(hidden)


def transform_of(spec: TransformSpec | None, sizes: Sizes) -> Transform | None:
    """The module of a head's `transform`, if it has one."""
    return None if spec is None else Transform(spec, sizes)
