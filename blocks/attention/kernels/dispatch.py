"""The attention kernels: what each supports, and the choice of one for a call. `eager` is the reference; `auto` takes the
fastest for the call."""

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module

import torch
from torch import Tensor

from pairform.blocks.attention.kernels.arguments import FEWEST, AttentionCall, Output, Parts, Run
from pairform.registry import InputError, Problem

FUNCTIONS: dict[str, Run] = {}
LACKS: dict[str, Callable[[str], str | None]] = {}
"""`run` and `lacks` of the kernels whose modules have been imported; a kernel that needs only torch has no `lacks`."""


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


@dataclass(frozen=True)
class Kernel:
    """What the kernel `name` supports. Its function has the same name, in the module of that name in this package.

    All kernels support windows, causality, padding, packed segments, grouped heads and gradients.

    devices, dtypes: None for all.
    elsewhere: why a kernel that could run on other devices is not allowed to.
    narrowest, widest: the smallest and the largest head dimension; None for no limit.
    untested: whether it has never run on a device that it supports. `auto` does not choose it then, and its first use warns.
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
    untested: bool = False

    @property
    def run(self) -> Run:
        """The kernel's function. It maps queries `[batch, heads, q, d]`, parts of keys and values `[batch, kv_heads, k, d]` and
        an `AttentionCall` to the output `[batch, heads, q, d]`."""
        if self.name not in FUNCTIONS:
            load(self.name)
        return FUNCTIONS[self.name]

    def lacks(self, device: str) -> str | None:
        """What is not installed for this kernel on a device, phrased to follow its name; None if nothing is missing."""
        if self.name not in FUNCTIONS:
            load(self.name)
        return LACKS[self.name](device) if self.name in LACKS else None

    def refuses(self, demand: Demand) -> str | None:
        """Why this kernel does not support the demand, phrased to follow its name; None if it does."""
        head_dim, device, dtype = demand.head_dim, demand.device, demand.dtype
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
        if device is None:
            return None
        if self.devices is not None and device not in self.devices:
            return f"cannot run on {device}" + (f": {self.elsewhere}" if self.elsewhere else "")
        if self.dtypes is not None and dtype is not None and dtype not in self.dtypes:
            return f"cannot compute in {dtype}"
        return self.lacks(device)


def load(name: str) -> None:
    """Import a kernel's module and register its function, which has the module's name, and its `lacks`, if it has one."""
    module = import_module(f"{__package__}.{name}")
    FUNCTIONS[name] = getattr(module, name)
    if hasattr(module, "lacks"):
        LACKS[name] = module.lacks


HALF = frozenset({torch.float16, torch.bfloat16})
CUDA = frozenset({"cuda"})
KERNELS: Mapping[str, Kernel] = {
    kernel.name: kernel
    for kernel in (
        Kernel("sdpa", softcap=False, dropout=True, bias=True),
        Kernel("eager", weights=True, dropout=True, bias=True),
        Kernel("chunked", dropout=True, bias=True),
        Kernel(
            "flex",
            devices=CUDA,
            elsewhere="torch's flex_attention returns wrong numbers on a CPU",
            dtypes=HALF | {torch.float32},
            narrowest=16,  # flex_attention's own limit
        ),
        Kernel("xformers", softcap=False, dropout=True, devices=CUDA, dtypes=HALF | {torch.float32}, untested=True),
        Kernel("flash", merged=False, pictures=False, devices=CUDA, dtypes=HALF, widest=256, untested=True),
    )
}
"""In order of speed on short sequences, the fastest first."""
# measured: `chunked` against `eager` with a softcap, and on a CPU against `sdpa` without
LONG_CAPPED, LONG = 1 << 16, 1 << 18
"""Queries times keys from which a kernel that does not hold the scores is faster, with a softcap and without."""


def attend(name: str, queries: Tensor, keys: Parts, values: Parts, call: AttentionCall) -> Output:
    """Run the kernel called `name`, or for "auto" the fastest that supports the call.

    Args:
        queries: `[batch, heads, q, head_dim]`.
        keys, values: for each sequence under the softmax, `[batch, kv_heads, k, head_dim]`.

    Raises:
        InputError: there is no kernel `name`, or it does not support the call.

    The kernel is chosen once for all layers of a forward pass that share a mask and have the same properties.
    """
    # all that the choice depends on besides the mask
    key = (name, call.softcap is None, call.weights, call.dropout > 0, bool(call.biases), queries.shape[-1], queries.dtype)
    run = call.mask.once(key, partial(select, name, queries, call))
    return run(queries, keys, values, call)


def select(name: str, queries: Tensor, call: AttentionCall) -> Run:
    """The function of the kernel for a call. It depends on the shape, dtype and device of `queries`, not on their values."""
    demand = Demand(
        softcap=call.softcap is not None,
        weights=call.weights,
        dropout=call.dropout > 0,
        merged=len(call.mask.parts) > 1,
        pictures=call.mask.parts[0].blocks is not None,
        bias=bool(call.biases),
        head_dim=queries.shape[-1],
        device=queries.device.type,
        dtype=queries.dtype,
    )
    if demand.device == "meta" and name in KERNELS and KERNELS[name].devices is not None:
        name = "auto"  # there only shapes are computed, which any kernel can do
    return choose(name, demand, preferred(demand, queries, call) if name == "auto" else ()).run


def choose(name: str, demand: Demand, preferred: Iterable[str] = KERNELS) -> Kernel:
    """The kernel called `name`, or for "auto" the first of `preferred` that supports the demand.

    Raises:
        InputError: there is no kernel `name`, or it does not support the demand.
    """
    if name != "auto" and name not in KERNELS:
        raise InputError(Problem("kernel", repr(name), f"auto or one of {', '.join(KERNELS)}"))
    for known in preferred if name == "auto" else (name,):
        if (reason := KERNELS[known].refuses(demand)) is None:
            if KERNELS[known].untested and demand.device is not None and not torch.compiler.is_compiling():
                warnings.warn(f"the kernel {known} has not been tested on a GPU: compare it with eager", stacklevel=2)
            return KERNELS[known]
    raise InputError(Problem("kernel", f"{name!r}, which {reason}", f"auto or one of {', '.join(able(demand))}"))


def prepare(name: str) -> None:
    """Import the kernels that a block may use, before it runs: compiled code cannot import them."""
    for known in KERNELS if name == "auto" else (name,):
        if known not in FUNCTIONS:
            load(known)


def able(demand: Demand) -> list[str]:
    """The names of the kernels that support the demand."""
    return [name for name, kernel in KERNELS.items() if kernel.refuses(demand) is None]


def preferred(demand: Demand, queries: Tensor, call: AttentionCall) -> tuple[str, ...]:
    """Names of kernels to try, the fastest first. flex on a GPU and chunked on a CPU do not hold the scores, and skip keys that
    are outside a window; flex first has to compile."""
    if queries.shape[2] == 1:
        return ("eager",)  # does not copy keys to join parts or to repeat them for beams; on a CPU sdpa takes ten times as long
    short = ("sdpa", "eager")
    if torch.compiler.is_exporting() or call.weights or not chunks_pay(call, demand.device):
        return short  # one exported graph serves all lengths, so the choice cannot depend on them
    if demand.device != "cuda":
        return ("chunked", *short)
    return ("flex", "chunked", *short)


def chunks_pay(call: AttentionCall, device: str | None) -> bool:
    """Whether there are enough scores for a kernel that does not hold them. On a GPU sdpa does not hold them either, so there
    another kernel pays only with a softcap, or with a window that masks at least half of the keys."""
    if call.mask.parts[0].query_length <= FEWEST:
        return False
    queries, keys = call.mask.lengths
    if queries * keys < (LONG if call.softcap is None else LONG_CAPPED):
        return False
    return device == "cpu" or call.softcap is not None or 2 * call.mask.seen_by(FEWEST) <= keys
