"""The tanh approximation of GELU (Hendrycks and Gimpel 2016, arXiv 1606.08415, section 2)."""

from math import pi, sqrt

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from pairform.blocks.functional.dtypes import cast, wide
from pairform.blocks.functional.plain import compiled_on_cpu, differentiable, plain

FEW = 1 << 13
"""Up to this many elements the calls of five operators take longer than torch's own kernel."""


def gelu_tanh(hidden: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """`x (1 + tanh(u)) / 2` with `u = sqrt(2 / pi) (x + 0.044715 x^3)`.

    On a CPU computed as the equal `x sigmoid(2 u)`, if it is compiled or needs no gradients: torch's kernel takes twice as
    long, and loses the digits of negative numbers to cancellation.
    """
    if compiled_on_cpu(hidden):
        inner = wide(hidden)
        return (inner * torch.sigmoid(2 * sqrt(2 / pi) * (inner + 0.044715 * inner**3))).to(hidden.dtype)
    if hidden.dtype == torch.float64 or differentiable(hidden) or not plain(hidden) or hidden.numel() <= FEW:
        return functional.gelu(hidden, approximate="tanh")
    exact = wide(hidden)
    inner = torch.mul(exact, exact)
    inner = torch.addcmul(exact, inner, exact, value=0.044715, out=inner)
    return cast(inner.mul_(2 * sqrt(2 / pi)).sigmoid_().mul_(exact), hidden.dtype)
