"""Products with weights, `[..., in]` times `[out, in]`."""

from collections.abc import Callable
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


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
        product = (weight.float() * hidden.reshape(-1).float()).sum(-1).reshape(*hidden.shape[:-1], -1)
        return (product if bias is None else product + bias.float()).to(hidden.dtype)
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
        if input.dtype == torch.bfloat16:
            return linear(input, self.weight, self.bias)
        return functional.linear(input, self.weight, self.bias)


class WideLinear(Linear):
    """A `Linear` that stays in float32 in a model of float16: a conversion to float16 leaves its weights in float32."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        def widened(tensor: Tensor) -> Tensor:
            made = fn(tensor)
            return tensor.to(made.device, torch.float32) if made.dtype == torch.float16 else made

        super()._apply(widened, recurse)  # type: ignore[no-untyped-call]
        return self


def wide_tensors(model: nn.Module) -> set[str]:
    """The names of the parameters that float16 leaves in float32."""
    return {
        f"{path}.{name}"
        for path, module in model.named_modules()
        if isinstance(module, WideLinear)
        for name, _ in module.named_parameters()
    }
