"""Norms along the width. Each maps `[..., width]` to the same shape and computes in at least float32.

The output has the dtype of the input, or that of the weights if it is narrower (float32 hidden states, float16 weights).
"""

from typing import ClassVar, Literal, Self

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from pairform.blocks.functional.dtypes import narrower, wide, wide_dtype
from pairform.blocks.functional.initializers import Constant, Initial
from pairform.blocks.functional.rms_norm import rms_norm
from pairform.registry import BlockSpec, PositiveFloat, Sizes


class RMSNorm(nn.Module):
    """Root mean square norm (Zhang and Sennrich 2019, arXiv 1910.07467, section 4).

    With `unit_offset` the scale is `1 + weight`, as in Gemma, so that a weight of zero is the identity scale.
    """

    class Spec(BlockSpec):
        name: Literal["rmsnorm"] = "rmsnorm"
        formula: ClassVar[str] = r"""
        $$y = g \odot \frac{x}{\sqrt{\frac{1}{d} \sum_{c=1}^{d} x_c^2 + \epsilon}}$$

        where $g$ is `weight`, or $1 +$ `weight` with `unit_offset`.
        """
        eps: PositiveFloat = Field(default=1e-6, description="Added to the mean square before the square root.")
        unit_offset: bool = Field(default=False, description="Scale by `1 + weight`, as Gemma does, instead of `weight`.")
        affine: bool = Field(default=True, description="Learn a scale. Without it the norm has no weight.")

        @model_validator(mode="after")
        def _an_offset_has_a_weight(self) -> Self:
            if self.unit_offset and not self.affine:
                raise ValueError("a learned scale (affine) for unit_offset")
            return self

    def __init__(self, spec: Spec, sizes: Sizes) -> None:
        super().__init__()
        self.spec = spec
        self.width = sizes.width
        self.weight = nn.Parameter(torch.empty(sizes.width)) if spec.affine else None

    def initial(self, parameter: str, spread: float) -> Initial:
        return Constant(value=0.0 if self.spec.unit_offset else 1.0)

    def forward(self, hidden: Float[Tensor, "... width"]) -> Float[Tensor, "... width"]:
        weight, dtype = self.weight, wide_dtype(hidden.dtype)
        if weight is None:
            return rms_norm(hidden, None, self.spec.eps)
        # converted before 1 is added, as in Gemma: bfloat16 would round 1 + weight to 8 bits
        scale = weight if weight.dtype == dtype else weight.to(dtype)
        normed = rms_norm(hidden, 1 + scale if self.spec.unit_offset else scale, self.spec.eps)
        return normed if weight.dtype == hidden.dtype else normed.to(narrower(hidden.dtype, weight.dtype))


class LayerNorm(nn.Module):
    """Layer norm (Ba et al. 2016, arXiv 1607.06450, section 3): mean and variance along the width."""

    class Spec(BlockSpec):
        name: Literal["layernorm"] = "layernorm"
        formula: ClassVar[str] = r"""
        $$y = g \odot \frac{x - \mu}{\sqrt{v + \epsilon}} + b, \qquad \mu = \frac{1}{d} \sum_{c=1}^{d} x_c, \qquad
        v = \frac{1}{d} \sum_{c=1}^{d} (x_c - \mu)^2$$
        """
        eps: PositiveFloat = Field(default=1e-5, description="Added to the variance before the square root.")
        bias: bool = Field(default=True, description="Add a learned bias.")

    def __init__(self, spec: Spec, sizes: Sizes) -> None:
        super().__init__()
        self.spec = spec
        self.weight = nn.Parameter(torch.empty(sizes.width))
        self.bias = nn.Parameter(torch.empty(sizes.width)) if spec.bias else None

    def initial(self, parameter: str, spread: float) -> Initial:
        return Constant(value=1.0 if parameter == "weight" else 0.0)

    def forward(self, hidden: Float[Tensor, "... width"]) -> Float[Tensor, "... width"]:
        bias = None if self.bias is None else wide(self.bias)
        normed = functional.layer_norm(wide(hidden), self.weight.shape, wide(self.weight), bias, self.spec.eps)
        return normed.to(narrower(hidden.dtype, self.weight.dtype))


class ScaleNorm(nn.Module):
    """`g * x / |x|` with one learned length g, initially sqrt(width) (Nguyen and Salazar 2019, arXiv 1910.05895, 2.3)."""

    class Spec(BlockSpec):
        name: Literal["scalenorm"] = "scalenorm"
        formula: ClassVar[str] = r"""
        $$y = g \frac{x}{\max(\lVert x \rVert_2, \epsilon)}$$

        where $g$ is one number.
        """
        eps: PositiveFloat = Field(default=1e-5, description="Lower bound of the length `|x|` that is divided by.")

    def __init__(self, spec: Spec, sizes: Sizes) -> None:
        super().__init__()
        self.spec = spec
        self.width = sizes.width
        self.weight = nn.Parameter(torch.empty(1))

    def initial(self, parameter: str, spread: float) -> Initial:
        return Constant(value=self.width**0.5)

    def forward(self, hidden: Float[Tensor, "... width"]) -> Float[Tensor, "... width"]:
        normed = functional.normalize(wide(hidden), dim=-1, eps=self.spec.eps) * wide(self.weight)
        return normed.to(narrower(hidden.dtype, self.weight.dtype))


class DynamicTanh(nn.Module):
    """`weight * tanh(alpha * x) + bias`: no statistics are computed (DyT; Zhu et al. 2025, arXiv 2503.10622, section 4)."""

    class Spec(BlockSpec):
        name: Literal["dynamic_tanh"] = "dynamic_tanh"
        formula: ClassVar[str] = r"""
        $$y = g \odot \tanh(\alpha x) + b$$

        where $\alpha$ is one number.
        """
        alpha: PositiveFloat = Field(default=0.5, description="Initial value of the learned slope.")
        bias: bool = Field(default=True, description="Add a learned bias.")

    def __init__(self, spec: Spec, sizes: Sizes) -> None:
        super().__init__()
        self.spec = spec
        self.alpha = nn.Parameter(torch.empty(1))
        self.weight = nn.Parameter(torch.empty(sizes.width))
        self.bias = nn.Parameter(torch.empty(sizes.width)) if spec.bias else None

    def initial(self, parameter: str, spread: float) -> Initial:
        return Constant(value={"alpha": self.spec.alpha, "weight": 1.0, "bias": 0.0}[parameter])

    def forward(self, hidden: Float[Tensor, "... width"]) -> Float[Tensor, "... width"]:
        squashed = torch.tanh(wide(self.alpha) * wide(hidden)) * wide(self.weight)
        shifted = squashed if self.bias is None else squashed + wide(self.bias)
        return shifted.to(narrower(hidden.dtype, self.weight.dtype))


class NoNorm(nn.Module):
    """The identity, for architectures without this norm."""

    class Spec(BlockSpec):
        name: Literal["none"] = "none"
        formula: ClassVar[str] = r"$$y = x$$"

    def __init__(self, spec: Spec, sizes: Sizes) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, hidden: Float[Tensor, "... width"]) -> Float[Tensor, "... width"]:
        return hidden
