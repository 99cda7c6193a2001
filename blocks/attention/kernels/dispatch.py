"""Attention kernels by name. `eager` is the reference for all others; `auto` takes the fastest that can do the work."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from pairform.blocks.attention.kernels.arguments import FEWEST, Answer, AttentionCall, Parts
from pairform.blocks.attention.kernels.capabilities import Demand, Kernel
from pairform.registry import InputError, Problem

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
            narrowest=16,
        ),
        Kernel("xformers", softcap=False, dropout=True, devices=CUDA, dtypes=HALF | {torch.float32}),
        Kernel("flash", merged=False, pictures=False, devices=CUDA, dtypes=HALF, widest=256),
    )
}
"""For short sequences, fastest first."""
LONG_CAPPED, LONG = 1 << 16, 1 << 18
"""Queries times keys from which on it pays not to hold the scores, with a softcap and without."""


def attend(name: str, queries: Tensor, keys: Parts, values: Parts, call: AttentionCall) -> Answer:
    """Run the kernel called `name`, or for "auto" the fastest that can do the work.

    It is chosen once for all layers of a forward pass that share a mask and ask for the same.
    """
    asked = (name, call.softcap is None, call.weights, call.dropout > 0, bool(call.biases), queries.shape[-1], queries.dtype)
    kernel = call.mask.once(asked, lambda: select(name, queries, call))
    return kernel.run(queries, keys, values, call)


def select(name: str, queries: Tensor, call: AttentionCall) -> Kernel:
    """The kernel for a call, of which only shapes, dtype and device of `queries` count."""
    demand = Demand(
        softcap=call.softcap is not None,
        weights=call.weights,
        dropout=call.dropout > 0,
        merged=len(call.mask.parts) > 1,
        pictures=any(part.blocks is not None for part in call.mask.parts),
        bias=bool(call.biases),
        head_dim=queries.shape[-1],
        device=queries.device.type,
        dtype=queries.dtype,
    )
    if demand.device == "meta" and name in KERNELS and KERNELS[name].devices is not None:
        name = "auto"  # only shapes are wanted there
    return choose(name, demand, preferred(demand, queries, call) if name == "auto" else ())


def choose(name: str, demand: Demand, preferred: Iterable[str] = KERNELS) -> Kernel:
    """The kernel called `name`, or for "auto" the first of `preferred` that can do the work. One that cannot is an error."""
    if name == "auto":
        return next(KERNELS[known] for known in preferred if KERNELS[known].refuses(demand) is None)
    if name not in KERNELS:
        raise InputError(Problem("kernel", repr(name), f"auto or one of {', '.join(KERNELS)}"))
    if reason := KERNELS[name].refuses(demand):
        raise InputError(Problem("kernel", f"{name!r}, which {reason}", f"auto or one of {', '.join(able(demand))}"))
    return KERNELS[name]


def able(demand: Demand) -> list[str]:
    """The names of the kernels that can do the work."""
    return [name for name, kernel in KERNELS.items() if kernel.refuses(demand) is None]


def preferred(demand: Demand, queries: Tensor, call: AttentionCall) -> tuple[str, ...]:
    """Names to try, the fastest first. On a GPU flash-attn holds no scores either and skips what a window hides, as flex does
    once it is compiled; on a CPU chunks do both."""
    if queries.shape[2] == 1:
        return ("eager",)  # it joins no parts and copies no keys that beams share; on a CPU sdpa takes ten times as long
    short = ("sdpa", "eager")
    if torch.compiler.is_exporting() or call.weights or not chunks_pay(call, demand.device):
        return short  # what is exported serves every length, so that none can choose
    if demand.device != "cuda":
        return ("chunked", *short)
    return ("flash" if flash_serves(demand, queries, call) else "flex", "flex", "chunked", *short)


def chunks_pay(call: AttentionCall, device: str | None) -> bool:
    """Whether scores are many enough to do without holding them. On a GPU sdpa holds none either, where it can do the work and
    no window leaves most of it out."""
    queries, keys = call.mask.lengths
    if queries <= FEWEST or queries * keys < (LONG if call.softcap is None else LONG_CAPPED):
        return False
    return device == "cpu" or call.softcap is not None or 2 * call.mask.seen_by(FEWEST) <= keys


def flash_serves(demand: Demand, queries: Tensor, call: AttentionCall) -> bool:
    """Whether flash-attn is here and can say this mask."""
    from pairform.blocks.attention.kernels.variable_length import runs_of

    if KERNELS["flash"].refuses(demand):
        return False
    return call.mask.once("runs", lambda: runs_of(call.mask, len(queries), queries.device)) is not None
