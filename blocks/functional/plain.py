"""Where operators may be composed by hand: in eager mode on a CPU, and in code that is compiled for one."""

from contextvars import ContextVar

import torch
from torch import Tensor, nn

PLAIN = (Tensor, nn.Parameter)
"""The classes of tensors that are not quantised, sharded or otherwise wrapped, nor an export's."""
META: ContextVar[str] = ContextVar("META", default="meta")
"""The type of device that the meta device stands for while a pass on it is measured."""


def plain(tensor: Tensor) -> bool:
    """Whether this is a tensor on a CPU, and nothing traces, transforms, shards or wraps the operators on it."""
    device = tensor.device.type
    return (
        type(tensor) in PLAIN
        and (META.get() if device == "meta" else device) == "cpu"
        and not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()
    )


def differentiable(*tensors: Tensor) -> bool:
    """Whether autograd records operators on these tensors."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def compiled_on_cpu(tensor: Tensor) -> bool:
    """Whether operators on this tensor are compiled for this CPU. An exported program is for all devices."""
    return torch.compiler.is_compiling() and tensor.device.type == "cpu" and not torch.compiler.is_exporting()
