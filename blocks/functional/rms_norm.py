"""RMS norm on a CPU in eager mode, where torch composes its own of many operators, each of which allocates its output."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pairform.blocks.functional.plain import plain


def rms_norm(
    hidden: Float[Tensor, "... width"], scale: Float[Tensor, " width"] | None, eps: float
) -> Float[Tensor, "... width"]:
    """`torch.rms_norm` along the width."""
    if scale is None or hidden.dtype != torch.float32 or not plain(hidden, scale):
        return torch.rms_norm(hidden, hidden.shape[-1:], scale, eps)
    if torch.is_grad_enabled() and (hidden.requires_grad or scale.requires_grad):
        normed: Tensor = RMSNormFunction.apply(hidden, scale, eps)  # type: ignore[no-untyped-call]
        return normed
    return torch.mul(hidden, inverse(hidden, eps)).mul_(scale)


def inverse(hidden: Float[Tensor, "... width"], eps: float) -> Float[Tensor, "... 1"]:
    """`1 / sqrt(mean(hidden ** 2) + eps)`, without a temporary as large as `hidden`."""
    length = torch.linalg.vector_norm(hidden, 2, -1, True)
    return torch.addcmul(length.new_full((), eps), length, length, value=1 / hidden.shape[-1]).rsqrt_()


class RMSNormFunction(torch.autograd.Function):
    """`hidden * inverse(hidden) * scale` and its gradients, in fewer operators than autograd's."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, scale: Tensor, eps: float) -> Tensor:
        factor = inverse(hidden, eps)
        ctx.save_for_backward(hidden, scale, factor)
        ctx.eps = eps
        return torch.mul(hidden, factor).mul_(scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        hidden, scale, factor = ctx.saved_tensors
        width = hidden.shape[-1]
        if torch.is_grad_enabled():  # a gradient of the gradient
            normed = torch.rms_norm(hidden, (width,), scale, ctx.eps)
            needed = [each for each, wanted in zip((hidden, scale), ctx.needs_input_grad, strict=False) if wanted]
            found = iter(torch.autograd.grad(normed, needed, gradient, create_graph=True))
            return next(found) if ctx.needs_input_grad[0] else None, next(found, None), None
        unscaled = torch.mul(hidden, factor)
        products = torch.mul(gradient, unscaled).reshape(-1, width)
        of_scale = products.sum(0) if ctx.needs_input_grad[1] else None
        if not ctx.needs_input_grad[0]:
            return None, of_scale, None
        # with n the unscaled output: factor * (g scale - n mean(g scale n))
        means = torch.mv(products, scale).view(factor.shape)
        return torch.mul(gradient, scale).addcmul_(unscaled, means, value=-1 / width).mul_(factor), of_scale, None
