"""Linear layers, `[..., in]` times a weight `[out, in]`."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from pairform.blocks.functional.dtypes import cast_to
from pairform.blocks.functional.processor import slow_halves
from pairform.blocks.functional.wide_products import wide_product

FEW = 4
"""Rows up to which a product in half precision is limited by reading the weight, whatever the CPU multiplies in."""
PLAIN = (Tensor, nn.Parameter)
"""The classes of tensors that `wide_product` takes: not those of quantised or sharded weights, nor an export's."""


def linear(
    hidden: Float[Tensor, "... in"], weight: Float[Tensor, "out in"], bias: Float[Tensor, " out"] | None = None
) -> Float[Tensor, "... out"]:
    """`functional.linear`, faster on CPUs in half precision: for one token, as in decoding, and for many tokens if the CPU has no
    instructions for such products.
    """
    if (slow := slow_halves(hidden.device.type)) and (dtype := cast_to("cpu") or hidden.dtype) in slow:
        if takes_wide(hidden, weight, bias, dtype):
            rows, *others = (None if each is None else each.to(dtype) for each in (hidden, weight, bias))
            return wide_product(rows.reshape(-1, weight.shape[1]), *others).view(*hidden.shape[:-1], -1)
    one = hidden.numel() == weight.shape[1] and hidden.device.type == "cpu" and hidden.dtype == torch.bfloat16
    if not one or (torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)):
        return functional.linear(hidden, weight, bias)
    return one_row(hidden, weight, bias)


def takes_wide(hidden: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> bool:
    """Whether `wide_product` computes this product, which is in `dtype` after autocast; torch rejects what does not fit."""
    given = (hidden, weight) if bias is None else (hidden, weight, bias)
    return (
        not torch.compiler.is_exporting()  # the exported program is for all CPUs
        and hidden.shape[-1] == weight.shape[1]
        and hidden.numel() > FEW * weight.shape[1]
        and all(type(each) in PLAIN and (each.dtype == dtype or cast_to("cpu") is not None) for each in given)
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
        if input.dtype == torch.bfloat16 or slow_halves(input.device.type):  # else `linear` does nothing else
            return linear(input, self.weight, self.bias)
        return functional.linear(input, self.weight, self.bias)
