"""8-bit weights, as `load(..., quantise="int8")` puts them into linear layers.

Each row of a weight is 256 steps of its own largest value over 127.5, as in torchao (symmetric; Dettmers et al. 2022, arXiv
2208.07339, section 2.1, divide by 127). torchao makes and holds the quantised tensors.

int8:         weight-only: activations and products stay in the model's dtype.
int8_dynamic: the input of each layer is quantised, too, each token by its own largest value (as in section 2.1), and integers
              are multiplied. On a CPU alone.
"""

import logging
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pairform.assemblies.modeling.frozen_weights import ConstantLinear, put_constant
from pairform.blocks.functional.linear import linear
from pairform.blocks.functional.plain import differentiable
from pairform.blocks.functional.processor import multiplies_int8
from pairform.registry import InputError, Problem, shorten

STEP = 16
"""torch's CPU product of int8 weights reads this many columns at once, past the end of a row that is no multiple of it."""
FEW = 8
"""Up to this many tokens that product is faster."""
PIECE = 1 << 20
"""Elements of a weight that are quantised at a time."""
SMALLEST = torch.finfo(torch.float32).eps
"""The smallest scale, for rows of zeros."""
TOKENS = 2048
"""Tokens quantised and multiplied at a time: eight times as many take up to twice as long each, in newly mapped memory."""
ROWS = 1024
"""Rows of a weight that are widened at a time, so that they are still cached when they are multiplied."""


class Int8Linear(ConstantLinear):
    """A linear layer whose weight is torchao's `Int8Tensor`, `[out, in]`; the input may need a gradient.

    On the CPU it has its own product: torchao would widen the whole weight for each token unless it is compiled, and its
    compiled form uses the product for few tokens for any number of tokens.
    """

    held, option = "quantised weights", "quantise"

    def forward(self, input: Float[Tensor, "... in"]) -> Float[Tensor, "... out"]:
        if input.device.type != "cpu" or differentiable(input):
            return super().forward(input)
        weight: Any = self.weight
        rows = input.reshape(-1, self.in_features)
        few = len(rows) <= FEW and input.dtype == weight.scale.dtype == torch.bfloat16
        product = (few_rows if few else many_rows)(rows, weight.qdata, weight.scale.view(-1))
        return (product if self.bias is None else product + self.bias).view(*input.shape[:-1], self.out_features)


class DynamicInt8Linear(Int8Linear):
    """A linear layer that multiplies int8 by int8. Every token has its own scale, so that none depends on the others."""

    def forward(self, input: Float[Tensor, "... in"]) -> Float[Tensor, "... out"]:
        if differentiable(input):
            expected = "torch.no_grad(): rounding has no gradient"
            raise InputError(Problem("quantise", "int8_dynamic with an input that needs a gradient", expected))
        weight: Any = self.weight
        rows = input.reshape(-1, self.in_features)
        if len(rows) <= TOKENS or torch.compiler.is_compiling():
            product = dynamic_product(rows, weight.qdata, weight.scale.view(-1))
        else:
            product = rows.new_empty(len(rows), self.out_features)
            for part, some in zip(torch.split(product, TOKENS), torch.split(rows, TOKENS), strict=True):
                part.copy_(dynamic_product(some, weight.qdata, weight.scale.view(-1)))
        return (product if self.bias is None else product + self.bias).view(*input.shape[:-1], self.out_features)

    def check_apply(self, function: Callable[[Tensor], Tensor]) -> None:
        device = function(torch.empty(0)).device
        if device.type not in ("cpu", "meta"):
            raise InputError(off_cpu(device))


def dynamic_product(rows: Tensor, quantised: Tensor, scale: Tensor) -> Tensor:
    """`rows @ (scale * quantised)^T` with the rows quantised, too."""
    # not vector_norm, which takes seven times as long for many rows
    scales = rows.abs().amax(1, keepdim=True).float().div_(127).clamp_min_(SMALLEST)
    steps = torch.div(rows, scales).round_().to(torch.int8)
    return integer_product(steps, quantised).float().mul_(scale).mul_(scales).to(rows.dtype)


def integer_product(rows: Tensor, weight: Tensor) -> Tensor:
    """`rows @ weight^T` of int8 matrices: in int32, or on a CPU without instructions for it in float32, some rows of the weight
    at a time."""
    if multiplies_int8(rows.device.type):
        return torch._int_mm(rows, weight.t())
    exact = rows.float()
    return torch.cat([exact @ part.t().float() for part in torch.split(weight, ROWS)], dim=1)


def off_cpu(device: torch.device) -> Problem:
    return Problem("quantise", f"int8_dynamic on {device}", "a CPU", "Use int8 there, whose activations are not quantised.")


SCHEMES: dict[str, type[Int8Linear]] = {"int8": Int8Linear, "int8_dynamic": DynamicInt8Linear}


def few_rows(rows: Tensor, quantised: Tensor, scale: Tensor) -> Tensor:
    """`rows @ (scale * quantised)^T`, bound by one read of the weight."""
    return torch._weight_int8pack_mm(rows, quantised, scale)


def many_rows(rows: Tensor, quantised: Tensor, scale: Tensor) -> Tensor:
    """The same in the model's dtype, some rows of the weight at a time in one piece of memory. In float16, where the product
    could overflow, these are scaled first."""
    narrow = rows.dtype == torch.float16
    widened = rows.new_empty(min(ROWS, len(quantised)), quantised.shape[1])
    product = rows.new_empty(len(rows), len(quantised))
    for begin in range(0, len(quantised), ROWS):
        part = quantised[begin : begin + ROWS]
        some = widened[: len(part)].copy_(part)
        if narrow:
            some.mul_(scale[begin : begin + ROWS, None])
        product[:, begin : begin + ROWS] = linear(rows, some)
    return product if narrow else product.mul_(scale)


def quantiser(model: nn.Module, scheme: str | None, device: torch.device) -> Callable[[str, Tensor], Tensor]:
    """Prepare a skeleton. The returned function turns each `(name, tensor)` into the tensor to put in it.

    Every linear layer of the stacks is quantised; embeddings, a head (tied or not), norms and bridges are not, nor is a layer
    whose input width is no multiple of 16. All parameters are frozen.
    """
    if scheme is None:
        return lambda name, tensor: tensor
    if not isinstance(scheme, str) or scheme not in SCHEMES:
        raise InputError(Problem("quantise", shorten(scheme), f"{' or '.join(SCHEMES)}, or nothing"))
    if scheme == "int8_dynamic" and device.type not in ("cpu", "meta"):
        raise InputError(off_cpu(device))
    torchao()
    weights = put_constant(model, SCHEMES[scheme], lambda layer: layer.in_features % STEP == 0)
    scratch = torch.empty(0)

    def prepare(name: str, tensor: Tensor) -> Tensor:
        nonlocal scratch
        if name not in weights:
            return tensor
        if scratch.numel() < PIECE or scratch.device != tensor.device:
            scratch = torch.empty(PIECE, device=tensor.device)
        return quantise(tensor, scratch)

    return prepare


def quantise(weight: Float[Tensor, "out in"], scratch: Float[Tensor, " piece"]) -> Tensor:
    """torchao's `Int8Tensor` of a weight: its scales as torchao chooses them, rounded to the weight's dtype.

    Computed in `scratch`, float32. The temporaries of torchao's own functions take six times the result, and the memory that
    they fragment came to more than the whole model in bfloat16.
    """
    width = weight.shape[1]
    rows = max(len(scratch) // width, 1)
    steps = torch.empty(weight.shape, dtype=torch.int8, device=weight.device)
    scales = weight.new_empty(len(weight), 1)  # in the dtype in which the product for few tokens reads them
    for begin in range(0, len(weight), rows):
        part = weight[begin : begin + rows]
        wide = scratch[: part.numel()].view_as(part).copy_(part)
        # half of the 255 steps from -128 to 127, as in torchao; the paper divides by 127
        scale = torch.linalg.vector_norm(wide, torch.inf, dim=1, keepdim=True).div_(127.5).clamp_min_(SMALLEST)
        scales[begin : begin + rows] = scale
        rounded = scales[begin : begin + rows].float()  # steps of the scale that will multiply them
        steps[begin : begin + rows] = wide.div_(rounded).round_().clamp_(-128, 127)
    zeros = torch.zeros_like(scales, dtype=torch.int8)
    made: Tensor = torchao()(steps, scales, [1, width], weight.dtype, zero_point=zeros)
    return made


def torchao() -> Any:
    """torchao's class of quantised tensors."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)  # without a GPU it warns of each kernel for one
    try:
        from torchao.quantization import Int8Tensor
    except ImportError:
        remedy = "Run: pip install pairform[quantise]"
        raise InputError(Problem("quantise", "no torchao 0.18 or later", "torchao, which quantises weights", remedy)) from None
    finally:
        logging.disable(disabled)
    return Int8Tensor
