"""Linear layers, `[..., in]` times a weight `[out, in]`."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from pairform.blocks.functional.packing import COPIES, packed_linear


def linear(
    hidden: Float[Tensor, "... in"], weight: Float[Tensor, "out in"], bias: Float[Tensor, " out"] | None = None
) -> Float[Tensor, "... out"]:
    """`functional.linear`, faster for one token in bfloat16 on a CPU, as in decoding: there oneDNN takes two to four times as
    long as torch's own matrix-vector product, which is limited by memory bandwidth. Compiled code needs neither library.
    """
    copies = None if torch.compiler.is_compiling() or torch.is_grad_enabled() else COPIES.get()
    if copies is not None and (blocks := copies.of(hidden, weight)) is not None:
        return packed_linear(hidden, blocks, bias)
    one = hidden.numel() == weight.shape[1] and hidden.device.type == "cpu" and hidden.dtype == torch.bfloat16
    if not one or (torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)):
        return functional.linear(hidden, weight, bias)
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
