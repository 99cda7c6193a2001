"""What an attention call asks of a kernel, and what a kernel can do."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch

from pairform.blocks.attention.kernels.arguments import Run
from pairform.blocks.functional.constants import constant


@dataclass(frozen=True)
class Demand:
    """What is asked. Fields are False or None while they are not known: a spec tells less than a call.

    merged:   keys of two sequences under one softmax.
    pictures: runs of tokens that see each other whatever causality says: pictures, or prefixes.
    bias:     numbers added to scores: of relative positions, or of sinks.
    """

    softcap: bool = False
    weights: bool = False
    dropout: bool = False
    merged: bool = False
    pictures: bool = False
    bias: bool = False
    head_dim: int | None = None
    device: str | None = None
    dtype: torch.dtype | None = None


Lacks: TypeAlias = Callable[[str], str | None]
"""What is not installed for work on a device, as what follows the kernel's name; or None."""


@constant
def nothing(device: str) -> str | None:
    """For a kernel that needs only torch."""
    return None


@dataclass(frozen=True)
class Kernel:
    """`run` takes q `[batch, heads, q, d]`, parts of k and v `[batch, kv_heads, k, d]` and gives `[batch, heads, q, d]`.

    All kernels do windows, causality, padding, packed segments, grouped heads and gradients. `devices`, `dtypes` and `widest`
    (the largest head_dim) are None for all; `narrowest` is the smallest head_dim. `elsewhere` says why a kernel that could run
    on other devices may not. `lacks` says what is not installed for work on a device.
    """

    run: Run
    softcap: bool = True
    weights: bool = False
    dropout: bool = False
    merged: bool = True
    pictures: bool = True
    bias: bool = False
    devices: frozenset[str] | None = None
    elsewhere: str | None = None
    dtypes: frozenset[torch.dtype] | None = None
    narrowest: int = 1
    widest: int | None = None
    lacks: Lacks = nothing

    def refuses(self, demand: Demand) -> str | None:
        """Why this kernel cannot do the work, as what follows its name; or None."""
        asked = {
            "a softcap": demand.softcap and not self.softcap,
            "attention weights as an output": demand.weights and not self.weights,
            "dropout": demand.dropout and not self.dropout,
            "a bias on scores": demand.bias and not self.bias,
            "merged attention": demand.merged and not self.merged,
            "pictures or prefixes in a causal stack": demand.pictures and not self.pictures,
            f"heads of {demand.head_dim}": not self.takes(demand.head_dim),
        }
        for what, refused in asked.items():
            if refused:
                return f"cannot do {what}"
        device, dtype = demand.device, demand.dtype
        if device is None:
            return None
        if self.devices is not None and device not in self.devices:
            return f"cannot run on {device}" + (f": {self.elsewhere}" if self.elsewhere else "")
        if self.dtypes is not None and dtype is not None and dtype not in self.dtypes:
            return f"cannot compute in {dtype}"
        return self.lacks(device)

    def takes(self, head_dim: int | None) -> bool:
        return head_dim is None or (head_dim >= self.narrowest and (self.widest is None or head_dim <= self.widest))
