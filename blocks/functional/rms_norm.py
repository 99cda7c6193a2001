"""RMS norm, with gradients from a fused kernel on a CPU.

On a CPU torch composes the gradients of an RMS norm of a dozen operators, and keeps an intermediate result as large as the
input. Its layer norm has a kernel for them, and with a mean of zero that differs by one term.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pairform.blocks.functional import blocked_ops
from pairform.blocks.functional.blocked_ops import flat_rows
from pairform.blocks.functional.dtypes import cast, uncast, wide_dtype
from pairform.blocks.functional.plain import differentiable, plain

LAYER_NORM = torch.ops.aten.native_layer_norm_backward.default
ROWS = 256
"""Rows whose gradients of the scale are added up one after the other, in float32."""


def rms_norm(
    hidden: Float[Tensor, "... width"], scale: Float[Tensor, " width"] | None, eps: float
) -> Float[Tensor, "... width"]:
    """`scale * x / sqrt(mean(x^2) + eps)` along the width, computed in at least float32, in the dtype of `hidden`."""
    dtype, few = wide_dtype(hidden.dtype), hidden.numel() <= blocked_ops.AT_ONCE
    # norms are a fifth of the modules that a forward pass calls, so calls are saved where they do nothing
    if few and hidden.dtype == dtype:
        return torch.rms_norm(hidden, hidden.shape[-1:], scale, eps)

    def normed(rows: Tensor) -> Tensor:
        return cast(torch.rms_norm(cast(rows, dtype), rows.shape[-1:], scale, eps), rows.dtype)

    if few:
        return normed(hidden)
    if scale is not None and differentiable(hidden, scale) and plain(hidden) and plain(scale) and flat_rows(hidden) is not None:
        fused: Tensor = FusedRMSNorm.apply(hidden, scale, eps)  # type: ignore[no-untyped-call]
        return fused
    return blocked_ops.by_rows(normed, hidden)


class FusedRMSNorm(torch.autograd.Function):
    """`rms_norm` and its gradients. With r = 1 / sqrt(mean(x^2) + eps) and the gradient g of the output, the gradient of x is
    `r (g scale - x r^2 mean(g scale x))`, and that of the scale the sum of `g x r` over all rows.

    A layer norm also subtracts `r mean(g scale)` from the former, which is added again.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, scale: Tensor, eps: float) -> Tensor:
        normed, inverse = torch._fused_rms_norm(cast(rows_of(hidden)[0], scale.dtype), scale.shape, scale, eps)
        ctx.save_for_backward(hidden, scale, inverse)
        ctx.eps = eps
        return cast(normed, hidden.dtype).as_strided(hidden.shape, hidden.stride())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        hidden, scale, inverse = ctx.saved_tensors
        if torch.is_grad_enabled():  # gradients of these gradients are torch's
            normed = cast(torch.rms_norm(cast(hidden, scale.dtype), scale.shape, scale, ctx.eps), hidden.dtype)
            needed = ctx.needs_input_grad[:2]
            wanted = [each for each, need in zip((hidden, scale), needed, strict=True) if need]
            found = iter(torch.autograd.grad(normed, wanted, gradient, create_graph=True))
            return (*(next(found) if need else None for need in needed), None)
        if gradient.stride() != hidden.stride():
            gradient = like(hidden).copy_(gradient)
        of_hidden, of_scale, width = like(hidden), torch.zeros_like(scale), len(scale)
        # in pieces, so that fewer rows are added up one after the other
        flat = (*rows_of(of_hidden, hidden, gradient), inverse)
        for part, rows, given, root in zip(*(torch.split(each, ROWS) for each in flat), strict=True):
            given, mean = cast(given, scale.dtype), torch.zeros_like(root)
            wanted = [True, True, False]
            centred, summed, _ = LAYER_NORM(given, cast(rows, scale.dtype), scale.shape, mean, root, scale, None, wanted)
            with uncast(hidden.device.type):
                shift = torch.mm(given, scale[:, None]).mul_(root)
            part.copy_(centred.add_(shift, alpha=1 / width))
            of_scale.add_(summed)
        return of_hidden, of_scale, None


def like(tensor: Tensor) -> Tensor:
    """A new tensor with the same order of rows in memory."""
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device)


def rows_of(*tensors: Tensor) -> tuple[Tensor, ...]:
    flat = flat_rows(*tensors)
    assert flat is not None
    return flat
