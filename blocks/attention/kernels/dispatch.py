"""Attention kernels by name. `eager` is the reference for all others; `auto` takes the fastest that can do the work."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from pairform.blocks.attention.kernels import flash, flex
from pairform.blocks.attention.kernels import xformers as memory_efficient
from pairform.blocks.attention.kernels.arguments import Answer, Parts, Work
from pairform.blocks.attention.kernels.capabilities import Demand, Kernel
from pairform.blocks.attention.kernels.chunked.kernel import FEWEST, chunked
from pairform.blocks.attention.kernels.eager import eager
from pairform.blocks.attention.kernels.sdpa import sdpa
from pairform.blocks.attention.kernels.variable_length import runs_of
from pairform.blocks.context import Context
from pairform.registry import InputError, Problem

HALF = frozenset({torch.float16, torch.bfloat16})
CUDA = frozenset({"cuda"})
KERNELS: Mapping[str, Kernel] = {
    "sdpa": Kernel(sdpa, softcap=False, dropout=True, bias=True),
    "eager": Kernel(eager, weights=True, dropout=True, bias=True),
    "chunked": Kernel(chunked, dropout=True, bias=True),
    "flex": Kernel(
        flex.flex,
        devices=CUDA,
        elsewhere="torch's flex_attention returns wrong numbers on a CPU",
        dtypes=HALF | {torch.float32},
        narrowest=16,
        lacks=flex.lacks,
    ),
    "xformers": Kernel(
        memory_efficient.xformers,
        softcap=False,
        dropout=True,
        devices=CUDA,
        dtypes=HALF | {torch.float32},
        lacks=memory_efficient.lacks,
    ),
    "flash": Kernel(flash.flash, merged=False, pictures=False, devices=CUDA, dtypes=HALF, widest=256, lacks=flash.lacks),
}
"""For short sequences, fastest first."""
LONG_CAPPED, LONG = 1 << 16, 1 << 18
"""Queries times keys from which on it pays not to hold the scores, with a softcap and without."""


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


def attend(name: str, queries: Tensor, keys: Parts, values: Parts, work: Work, context: Context) -> Answer:
    """Run the kernel called `name`, or for "auto" the fastest that can do the work."""
    demand = demand_of(queries, keys, work)
    if demand.device == "meta" and name in KERNELS and KERNELS[name].devices is not None:
        name = "auto"  # only shapes are wanted there
    kernel = choose(name, demand, preferred(demand, queries, work, context) if name == "auto" else ())
    return kernel.run(queries, keys, values, work, context)


def demand_of(queries: Tensor, keys: Parts, work: Work) -> Demand:
    return Demand(
        softcap=work.softcap is not None,
        weights=work.weights,
        dropout=work.dropout > 0,
        merged=len(keys) > 1,
        pictures=any(part.blocks is not None for part in work.mask.parts),
        bias=work.biased,
        head_dim=queries.shape[-1],
        device=queries.device.type,
        dtype=queries.dtype,
    )


def preferred(demand: Demand, queries: Tensor, work: Work, context: Context) -> tuple[str, ...]:
    """Names to try, the fastest first. On a GPU flash-attn holds no scores either and skips what a window hides, as flex does
    once it is compiled; on a CPU chunks do both."""
    if queries.shape[2] == 1:
        return ("eager",)  # it joins no parts and copies no keys that beams share; on a CPU sdpa takes ten times as long
    short = ("sdpa", "eager")
    if torch.compiler.is_exporting() or work.weights or not chunks_pay(work, demand.device):
        return short  # what is exported serves every length, so that none can choose
    if demand.device != "cuda":
        return ("chunked", *short)
    flashes = KERNELS["flash"].refuses(demand) is None and (
        context.once(("runs", work.mask.key()), lambda: runs_of(work.mask, len(queries), queries.device)) is not None
    )
    return ("flash" if flashes else "flex", "flex", "chunked", *short)


def chunks_pay(work: Work, device: str | None) -> bool:
    """Whether scores are many enough to do without holding them. On a GPU sdpa holds none either, where it can do the work and
    no window leaves most of it out."""
    queries, keys = work.mask.lengths
    if queries <= FEWEST or queries * keys < (LONG if work.softcap is None else LONG_CAPPED):
        return False
    return device == "cpu" or work.softcap is not None or 2 * work.mask.seen_by(FEWEST) <= keys
