"""What an attention call requires of a kernel, and what a kernel supports."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

import torch

from pairform.blocks.attention.kernels.arguments import Run
from pairform.blocks.functional.constants import constant


@dataclass(frozen=True)
class Demand:
    """What a block or a call requires of a kernel.

    Fields are False or None while they are unknown: a spec determines fewer of them than a call.

    merged:   one softmax over the keys of two sequences.
    pictures: runs of tokens that attend to each other despite causality: image tokens, or prefixes.
    bias:     score biases, of relative positions or of sinks.
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
    """`lacks` of a kernel that needs only torch."""
    return None


FUNCTIONS: dict[str, Run] = {}
LACKS: dict[str, Callable[[str], str | None]] = {}
"""`run` and `lacks` of the kernels whose modules have been imported."""


def load(name: str) -> None:
    """Import a kernel's module and register its function, which has the module's name, and its `lacks`, if it has one."""
    if name not in FUNCTIONS:
        module = import_module(f"{__package__}.{name}")
        FUNCTIONS[name], LACKS[name] = getattr(module, name), getattr(module, "lacks", nothing)


@dataclass(frozen=True)
class Kernel:
    """What the kernel `name` supports. Its function has the same name, in the module of that name in this package.

    All kernels support windows, causality, padding, packed segments, grouped heads and gradients.

    devices, dtypes: None for all.
    elsewhere: why a kernel that could run on other devices is not allowed to.
    narrowest, widest: the smallest and the largest head dimension; None for no limit.
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
        """The kernel's function. It maps queries `[batch, heads, q, d]`, parts of keys and values `[batch, kv_heads, k, d]` and
        an `AttentionCall` to the output `[batch, heads, q, d]`."""
        load(self.name)
        return FUNCTIONS[self.name]

    def lacks(self, device: str) -> str | None:
        """What is not installed for this kernel on a device, phrased to follow its name; None if nothing is missing."""
        load(self.name)
        return LACKS[self.name](device)

    def refuses(self, demand: Demand) -> str | None:
        """Why this kernel does not support the demand, phrased to follow its name; None if it does."""
        head_dim = demand.head_dim
        for feature, unsupported in (
            ("a softcap", demand.softcap and not self.softcap),
            ("attention weights as an output", demand.weights and not self.weights),
            ("dropout", demand.dropout and not self.dropout),
            ("a bias on scores", demand.bias and not self.bias),
            ("merged attention", demand.merged and not self.merged),
            ("pictures or prefixes in a causal stack", demand.pictures and not self.pictures),
            (f"heads of {head_dim}", head_dim is not None and not self.narrowest <= head_dim <= (self.widest or head_dim)),
        ):
            if unsupported:
                return f"cannot do {feature}"
        device, dtype = demand.device, demand.dtype
        if device is None:
            return None
        if self.devices is not None and device not in self.devices:
            return f"cannot run on {device}" + (f": {self.elsewhere}" if self.elsewhere else "")
        if self.dtypes is not None and dtype is not None and dtype not in self.dtypes:
            return f"cannot compute in {dtype}"
        return self.lacks(device)
