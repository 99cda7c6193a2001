"""Weights in oneDNN's blocked layout, as `load(..., prepack=True)` puts them into linear layers.

For a product with few rows, as in decoding, oneDNN spends most of its time on reordering the weight into blocks, again for
each product. Here that is done once, when the weight is read. The blocks replace the plain weight, so memory does not grow.
"""

from collections.abc import Callable
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from pairform.assemblies.modeling.frozen_weights import ConstantLinear, put_constant
from pairform.blocks.functional.packing import packed, packed_linear
from pairform.blocks.functional.plain import differentiable
from pairform.blocks.functional.processor import has_onednn, instructions, onednn_multiplies
from pairform.registry import InputError, Problem, shorten


class PrepackedLinear(ConstantLinear):
    """A linear layer whose weight `[out, in]` is in oneDNN's blocks; `to_dense` gives it back."""

    held, option = "prepacked weights", "prepack"

    def check_apply(self, function: Callable[[Tensor], Tensor]) -> None:
        if not self.weight.is_mkldnn:  # of a skeleton
            return
        became = function(torch.empty(0, dtype=self.weight.dtype))
        if became.device.type != "cpu":
            raise off_cpu(became.device)
        check_dtype(became.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Convert the plain weight, as in `model.to(dtype)`, and lay it out again."""
        self.check_apply(fn)
        if blocks := self.weight.is_mkldnn:
            self.weight = nn.Parameter(self.weight.to_dense(), requires_grad=False)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        if blocks:
            self.weight = nn.Parameter(packed(self.weight), requires_grad=False)
        return self

    def __getstate__(self) -> dict[str, Any]:
        """With the plain weight, to be copied or pickled."""
        plain = nn.Parameter(self.weight.to_dense(), requires_grad=False) if self.weight.is_mkldnn else self.weight
        return self.__dict__ | {"_parameters": self._parameters | {"weight": plain}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]  # as above
        if self.weight.is_meta:
            return
        check_dtype(self.weight.dtype)
        self.weight = nn.Parameter(packed(self.weight), requires_grad=False)

    def forward(self, input: Float[Tensor, "... in"]) -> Float[Tensor, "... out"]:
        if differentiable(input):
            return functional.linear(input, self.weight.to_dense(), self.bias)
        if torch.compiler.is_compiling():  # which knows how to lower oneDNN's product only for constants of a graph
            product: Tensor = torch.ops.pairform.prepacked_linear(input, self.weight, self.bias)
            return product
        return packed_linear(input, self.weight, self.bias)


def shape_of_product(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return input.new_empty(*input.shape[:-1], weight.shape[0])


# not a custom_op, which costs as much time as a small product
torch.library.define("pairform::prepacked_linear", "(Tensor input, Tensor weight, Tensor? bias) -> Tensor")
# torch dispatches on the packed weight, whose key is MkldnnCPU
torch.library.impl("pairform::prepacked_linear", ("CPU", "MkldnnCPU"), packed_linear)
torch.library.register_fake("pairform::prepacked_linear", shape_of_product)


def prepacker(model: torch.nn.Module, device: str | torch.device) -> Callable[[str, Tensor], Tensor]:
    """Prepare a skeleton. The returned function turns each `(name, tensor)` into the tensor to put in it."""
    if torch.device(device).type != "cpu":
        raise off_cpu(device)
    if not has_onednn():
        raise InputError(Problem("prepack", "a torch without oneDNN", "a torch with oneDNN"))
    weights = put_constant(model, PrepackedLinear, lambda layer: True)

    def prepare(name: str, tensor: Tensor) -> Tensor:
        if name not in weights:
            return tensor
        check_dtype(tensor.dtype)
        return packed(tensor)

    return prepare


def off_cpu(device: str | torch.device) -> InputError:
    return InputError(Problem("prepack", f"the device {shorten(str(device))}", "a CPU"))


def check_dtype(dtype: torch.dtype) -> None:
    if onednn_multiplies(dtype):
        return
    here = ", ".join(str(other) for other in (torch.float32, torch.bfloat16, torch.float16) if onednn_multiplies(other))
    found = f"weights in {dtype}, which oneDNN does not multiply on this processor ({instructions()})"
    remedy = "Load in another dtype, as load(..., dtype=torch.float32), or without prepack."
    raise InputError(Problem("prepack", found, f"one of {here}", remedy))
