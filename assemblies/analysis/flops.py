"""Counting floating-point operations on the meta device with torch's formulas, without importing torch's compiler."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry


class FlopCounter(TorchDispatchMode):
    """Counts matrix products for each of the modules that are `running`, with the formulas of `torch.utils.flop_counter`.

    torch's FlopCounterMode, and its meta kernels for element-wise operations and those in `SHAPES`, import torch's compiler
    and sympy. `inspect` of t5gemma-9b-2b took 6.7 to 7.2 CPU seconds with it, and takes 3.4 to 4.1 with this counter.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.running: list[str] = []
        self.counts: Counter[str] = Counter()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        formula: Any = flop_registry.get(func._overloadpacket)
        if formula is not None:
            out = SHAPES.get(func, func)(*args, **kwargs)
            flops = formula(*args, **kwargs, out_val=out)
            self.counts.update(dict.fromkeys(self.running, flops))
            return out
        if func in SHAPES:
            return SHAPES[func](*args, **kwargs)
        if torch.Tag.pointwise in func.tags:
            return elementwise(args, kwargs)
        # an operation without a formula counts as the operations that it consists of
        with self:
            parts = func.decompose(*args, **kwargs)
        return func(*args, **kwargs) if parts is NotImplemented else parts


def elementwise(args: Any, kwargs: Mapping[str, Any]) -> Tensor:
    """A result of the broadcast shape of the tensors among the arguments."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    shape = numpy.broadcast_shapes(*(tensor.shape for tensor in tensors))
    # of floats and integers, the result has the floats' dtype
    dtype = kwargs.get("dtype") or max((tensor.dtype for tensor in tensors), key=lambda dtype: dtype.is_floating_point)
    return torch.empty(shape, dtype=dtype, device="meta")


def product(left: Tensor, right: Tensor) -> Tensor:
    return left.new_empty((*left.shape[:-1], right.shape[-1]))


def alike(tensor: Tensor, *_: Any, dtype: torch.dtype | None = None, **__: Any) -> Tensor:
    return tensor.new_empty(tensor.shape, dtype=dtype)


def concatenated(tensors: list[Tensor], dim: int = 0) -> Tensor:
    shape = list(tensors[0].shape)
    shape[dim] = sum(tensor.shape[dim] for tensor in tensors)
    return tensors[0].new_empty(shape)


def reduced(tensor: Tensor, dims: int | list[int], keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Tensor:
    axes = {dim % tensor.ndim for dim in ([dims] if isinstance(dims, int) else dims)}
    kept = [1 if axis in axes else size for axis, size in enumerate(tensor.shape) if keepdim or axis not in axes]
    return tensor.new_empty(kept, dtype=dtype)


def padded(tensor: Tensor, pad: list[int], *_: Any) -> Tensor:
    """pad: elements added before and after each axis, the last axis first."""
    shape = list(tensor.shape)
    for axis, (before, after) in enumerate(zip(pad[::2], pad[1::2], strict=True), start=1):
        shape[-axis] += before + after
    return tensor.new_empty(shape)


def convolved(
    tensor: Tensor, weight: Tensor, bias: Tensor | None, stride: list[int], padding: list[int], dilation: list[int], *_: Any
) -> Tensor:
    sizes = zip(tensor.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
    shape = [(size + 2 * pad - step * (kernel - 1) - 1) // stride + 1 for size, kernel, stride, pad, step in sizes]
    return tensor.new_empty((len(tensor), len(weight), *shape))


def layer_normed(tensor: Tensor, shape: list[int], *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    rows = (*tensor.shape[: -len(shape)], *(1 for _ in shape))
    return tensor.new_empty(tensor.shape), tensor.new_empty(rows), tensor.new_empty(rows)


def counted(start: int, end: int, step: int = 1, *, dtype: torch.dtype | None = None, **_: Any) -> Tensor:
    return torch.empty(len(range(start, end, step)), dtype=dtype or torch.long, device="meta")


SHAPES: Mapping[Any, Callable[..., Any]] = {
    torch.ops.aten.mm.default: product,
    torch.ops.aten.bmm.default: product,
    torch.ops.aten.addmm.default: lambda bias, left, right, **_: product(left, right),
    torch.ops.aten.embedding.default: lambda table, ids, *_: table.new_empty((*ids.shape, *table.shape[1:])),
    torch.ops.aten._softmax.default: alike,
    torch.ops.aten._safe_softmax.default: alike,
    torch.ops.aten.zeros_like.default: alike,
    torch.ops.aten.empty_like.default: alike,
    torch.ops.aten.full_like.default: alike,
    torch.ops.aten.cat.default: concatenated,
    torch.ops.aten.mean.dim: reduced,
    torch.ops.aten.all.dim: partial(reduced, dtype=torch.bool),
    torch.ops.aten.argmax.default: partial(reduced, dtype=torch.long),
    torch.ops.aten.cumsum.default: alike,
    torch.ops.aten.flip.default: alike,
    torch.ops.aten.roll.default: alike,
    torch.ops.aten.masked_scatter.default: alike,
    torch.ops.aten.constant_pad_nd.default: padded,
    torch.ops.aten.convolution.default: convolved,
    torch.ops.aten.native_layer_norm.default: layer_normed,
    torch.ops.aten.arange.start: counted,
    torch.ops.aten.arange.start_step: counted,
}
"""Operations of which only the shape of the result matters."""


@contextmanager
def count_flops(model: nn.Module) -> Iterator[Counter[str]]:
    """Count by a module's path what runs inside it; "" is the whole model. A shared module counts under its last path.

    The hooks are those of this model alone: torch's ModuleTracker would also follow models that run in other threads.
    """
    counter = FlopCounter()
    paths = {module: path for path, module in model.named_modules(remove_duplicate=False)}

    def enter(module: nn.Module, _: Any) -> None:
        counter.running.append(paths[module])

    def leave(*_: Any) -> None:
        counter.running.pop()

    hooks = [module.register_forward_pre_hook(enter) for module in paths]
    hooks += [module.register_forward_hook(leave) for module in paths]
    try:
        with counter:
            yield counter.counts
    finally:
        for hook in hooks:
            hook.remove()
