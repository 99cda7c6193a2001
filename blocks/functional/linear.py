"""Linear layers, `[..., in]` times a weight `[out, in]`."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from pairform.blocks.functional.dtypes import cast_to
from pairform.blocks.functional.packing import COPIES, packed_linear
from pairform.blocks.functional.plain import PLAIN, differentiable, plain
from pairform.blocks.functional.processor import HALVES, MANY, wide_rows, widens
from pairform.blocks.functional.wide_products import wide_product

ENOUGH = 1 << 25
"""Multiplications from which `wide_product` pays where half precision is only somewhat slower. Below, its calls cost more."""
SMALL, SEVERAL = 1 << 18, 8
"""The largest weight that is cast to float32 whole, and from how many rows on: with both, that takes 0.6 to 1 times as long as
oneDNN's product in bfloat16. In training the cast weight is kept for the backward pass."""


def linear(
    hidden: Float[Tensor, "... in"], weight: Float[Tensor, "out in"], bias: Float[Tensor, " out"] | None = None
) -> Float[Tensor, "... out"]:
    """`functional.linear`, faster on CPUs: with packed weights in decoding steps, for one token in bfloat16, and for many
    tokens in half precision where such products are slow.
    """
    copies = None if torch.is_grad_enabled() or torch.compiler.is_compiling() else COPIES.get()
    if copies is not None and (blocks := copies.of(hidden, weight)) is not None:
        return packed_linear(hidden, blocks, bias)
    if hidden.dtype not in HALVES and not torch.is_autocast_enabled("cpu"):
        return functional.linear(hidden, weight, bias)
    if widens(hidden.device.type) and is_small(hidden, weight, bias):
        product = functional.linear(hidden.float(), weight.float(), None if bias is None else bias.float())
        return product.to(hidden.dtype)
    if widens(hidden.device.type) and takes_wide(hidden, weight, bias):
        dtype = cast_to("cpu") or hidden.dtype
        rows, columns = hidden.to(dtype).reshape(-1, weight.shape[1]), weight.to(dtype)
        product = wide_product(rows, columns, None if bias is None else bias.to(dtype))
        return product.view(*hidden.shape[:-1], -1)
    one = hidden.numel() == weight.shape[1] and hidden.device.type == "cpu" and hidden.dtype == torch.bfloat16
    if not one or differentiable(hidden, weight):
        return functional.linear(hidden, weight, bias)
    return one_row(hidden, weight, bias)


def is_small(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether a product that takes longer in half precision is small enough to cast both matrices whole."""
    return (
        weight.numel() <= SMALL
        and SEVERAL * weight.shape[1] <= hidden.numel() < ENOUGH // weight.shape[0]
        and plain(hidden)
        and all(each is None or (type(each) in PLAIN and each.dtype == hidden.dtype) for each in (weight, bias))
        and wide_rows("cpu", hidden.dtype) is not None
        and cast_to("cpu") is None
    )


def takes_wide(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether `wide_product` computes a product on a CPU; torch rejects operands that do not match."""
    cast, given = cast_to("cpu"), (hidden, weight) if bias is None else (hidden, weight, bias)
    dtype = cast or hidden.dtype
    least = wide_rows("cpu", dtype)
    return (
        least is not None
        and hidden.numel() >= least * weight.shape[1]
        and (least < MANY or hidden.numel() * weight.shape[0] >= ENOUGH)
        and hidden.shape[-1] == weight.shape[1]
        and all(type(each) in PLAIN and (each.dtype == dtype or cast is not None) for each in given)
        and not torch.compiler.is_exporting()  # an exported program is for all CPUs
    )


def one_row(hidden: Float[Tensor, "... in"], weight: Float[Tensor, "out in"], bias: Tensor | None) -> Float[Tensor, "... out"]:
    """The product with one token in bfloat16, without gradients. oneDNN takes two to four times as long as torch's own
    matrix-vector product, which is limited by memory bandwidth. Compiled code needs neither library."""
    if torch.compiler.is_compiling():
        product = (weight.float() * hidden.reshape(-1).float()).sum(-1).reshape(*hidden.shape[:-1], -1)
        return (product if bias is None else product + bias.float()).to(hidden.dtype)
    enabled = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        return functional.linear(hidden, weight, bias)
    finally:
        if enabled:  # two threads that interleave here never leave it off
            torch._C._set_mkldnn_enabled(True)


class Linear(nn.Linear):
    """`nn.Linear` that computes with `linear`."""

    def forward(self, input: Float[Tensor, "... in"]) -> Float[Tensor, "... out"]:
        return linear(input, self.weight, self.bias)
