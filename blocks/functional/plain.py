"""Where operators may be composed by hand: in eager mode on a CPU."""

import torch
from torch import Tensor, nn

PLAIN = (Tensor, nn.Parameter)


def plain(tensor: Tensor, other: Tensor | None = None) -> bool:
    """Whether these are tensors on a CPU, and nothing traces, transforms, shards or wraps the operators on them."""
    return (
        type(tensor) in PLAIN
        and (other is None or type(other) in PLAIN)
        and tensor.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()
    )
