"""Autocast and fused kernels on the meta device, as far as they decide which tensors autograd saves."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import Function
from torch.overrides import TorchFunctionMode

PRODUCTS: frozenset[Callable[..., Any]] = frozenset(
    {
        nn.functional.linear,
        nn.functional.scaled_dot_product_attention,
        torch.matmul,
        torch.bmm,
        torch.einsum,
        Tensor.matmul,
        Tensor.__matmul__,
    }
)
"""What autocast computes in half precision."""
NORMS: frozenset[Callable[..., Any]] = frozenset({nn.functional.rms_norm, torch.rms_norm})


class Substitutes(TorchFunctionMode):
    """Stands in for what the meta device lacks: autocast of products to bfloat16, and fused kernels."""

    def __init__(self, autocast: bool, fused: bool) -> None:
        super().__init__()
        self.autocast, self.fused = autocast, fused
        self.cast: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.autocast and func in PRODUCTS:
            args = [self.narrow(each) for each in args]
            kwargs = {name: self.narrow(each) for name, each in kwargs.items()}
        if func is nn.functional.scaled_dot_product_attention:
            apply: Any = FusedAttention.apply  # torch leaves it untyped
            return apply(*args[:3], kwargs.get("attn_mask"))
        if self.fused and func in NORMS:
            apply = FusedNorm.apply
            return apply(args[0])
        return func(*args, **kwargs)

    def narrow(self, tensor: Any) -> Any:
        """A float32 tensor in bfloat16. Those of parameters are made once, as autocast does."""
        if not isinstance(tensor, Tensor) or tensor.dtype != torch.float32:
            return tensor
        if not tensor.is_leaf:
            return tensor.to(torch.bfloat16)
        if id(tensor) not in self.cast:
            self.cast[id(tensor)] = tensor, tensor.to(torch.bfloat16)
        return self.cast[id(tensor)][1]


class FusedAttention(Function):
    """What flash attention keeps: its inputs, its output and one number for each query."""

    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        out = queries.new_empty((*queries.shape[:-1], values.shape[-1]))
        ctx.save_for_backward(queries, keys, values, mask, out, queries.new_empty(queries.shape[:-1], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise NotImplementedError("only forward passes are measured")


class FusedNorm(Function):
    """What a fused norm keeps: its input, and one number for each token."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor) -> Tensor:
        ctx.save_for_backward(hidden, hidden.new_empty(hidden.shape[:-1]))
        return hidden.new_empty(hidden.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise NotImplementedError("only forward passes are measured")
