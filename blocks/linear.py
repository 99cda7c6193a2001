"""Products with weights, `[..., in]` times `[out, in]`."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from pairform.blocks.precision import wide


def linear(
    hidden: Float[Tensor, "... in"], weight: Float[Tensor, "out in"], bias: Float[Tensor, " out"] | None = None
) -> Float[Tensor, "... out"]:
    """`functional.linear`. For one token in half precision on a CPU, as in decoding, it reads the weights at the full speed of
    the memory: there oneDNN takes two to four times as long as torch's own matrix-vector product, and compiled code needs no
    library at all.
    """
    one = hidden.numel() == weight.shape[1] and hidden.device.type == "cpu" and hidden.dtype == torch.bfloat16
    if not one or (torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)):
        return functional.linear(hidden, weight, bias)
    if torch.compiler.is_compiling():
        product = (wide(weight) * wide(hidden.reshape(-1))).sum(-1).reshape(*hidden.shape[:-1], -1)
        return (product if bias is None else product + wide(bias)).to(hidden.dtype)
    enabled = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        return functional.linear(hidden, weight, bias)
    finally:
        if enabled:  # so that two threads that interleave never leave it off
            torch._C._set_mkldnn_enabled(True)


class Linear(nn.Linear):
    """`nn.Linear` by `linear`."""

    def forward(self, input: Float[Tensor, "... in"]) -> Float[Tensor, "... out"]:
        return linear(input, self.weight, self.bias)
