"""What an attention call asks of a kernel, and what a kernel can do."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

import torch

from pairform.blocks.attention.kernels.arguments import Run
from pairform.blocks.functional.constants import constant


@dataclass(frozen=True)
class Demand:
    """What a block or a call asks of a kernel.

    Fields are False or None while they are not known: a spec tells less than a call.

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


@constant
def nothing(device: str) -> str | None:
    """For a kernel that needs only torch."""
    return None


FUNCTIONS: dict[str, Run] = {}
LACKS: dict[str, Callable[[str], str | None]] = {}
"""`run` and `lacks` of the kernels whose modules have been imported."""


def load(name: str) -> None:
    """Import a kernel's module: the function of its own name, and `lacks` where it needs more than torch."""
    module = import_module(f"{__package__}.{name}")
    FUNCTIONS[name], LACKS[name] = getattr(module, name), getattr(module, "lacks", nothing)


@dataclass(frozen=True)
class Kernel:
    """What the function of that name, in the module of that name beside this one, can do.

    All kernels do windows, causality, padding, packed segments, grouped heads and gradients. `devices`, `dtypes` and `widest`
    (the largest head_dim) are None for all; `narrowest` is the smallest head_dim. `elsewhere` says why a kernel that could run
    on other devices may not.
    """

    name: str
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

    @property
    def run(self) -> Run:
        """Takes q `[batch, heads, q, d]` and parts of k and v `[batch, kv_heads, k, d]`, gives `[batch, heads, q, d]`."""
        if self.name not in FUNCTIONS:
            load(self.name)
        return FUNCTIONS[self.name]

    def lacks(self, device: str) -> str | None:
        """What is not installed for work on a device, as what follows the kernel's name; or None."""
        if self.name not in LACKS:
            load(self.name)
        return LACKS[self.name](device)

    def refuses(self, demand: Demand) -> str | None:
        """Why this kernel cannot do the work, as what follows its name; or None."""
        head_dim = demand.head_dim
        for what, refused in (
            ("a softcap", demand.softcap and not self.softcap),
            ("attention weights as an output", demand.weights and not self.weights),
            ("dropout", demand.dropout and not self.dropout),
            ("a bias on scores", demand.bias and not self.bias),
            ("merged attention", demand.merged and not self.merged),
            ("pictures or prefixes in a causal stack", demand.pictures and not self.pictures),
            (f"heads of {head_dim}", head_dim is not None and not self.narrowest <= head_dim <= (self.widest or head_dim)),
        ):
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
