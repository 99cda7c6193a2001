"""Attention kernels by name. `eager` is the reference for all others; `auto` takes the fastest that can do the work."""

from collections.abc import Mapping

from torch import Tensor

from pairform.blocks.attention.chunked import FEWEST, chunked
from pairform.blocks.attention.eager import eager
from pairform.blocks.attention.sdpa import sdpa
from pairform.blocks.attention.work import Answer, Kernel, Parts, Work
from pairform.blocks.context import Context
from pairform.registry import InputError, Problem

KERNELS: Mapping[str, Kernel] = {
    "sdpa": Kernel(sdpa, softcap=False, weights=False),
    "eager": Kernel(eager, softcap=True, weights=True),
    "chunked": Kernel(chunked, softcap=True, weights=False),
}
"""For short sequences, fastest first."""
LONG = 1 << 18
"""Queries times keys from which on chunks pay."""


def choose(name: str, *, softcap: bool, weights: bool) -> Kernel:
    """The kernel called `name`, or for "auto" the fastest that can do the work. One that cannot is an error."""
    able = {known: kernel for known, kernel in KERNELS.items() if not kernel.refuses(softcap=softcap, weights=weights)}
    if name == "auto":
        return next(iter(able.values()))
    if name not in KERNELS:
        raise InputError(Problem("kernel", repr(name), f"auto or one of {', '.join(KERNELS)}"))
    if name not in able:
        reason = KERNELS[name].refuses(softcap=softcap, weights=weights)
        raise InputError(Problem("kernel", repr(name), f"one that can do {reason}: {', '.join(able)}"))
    return able[name]


def attend(name: str, queries: Tensor, keys: Parts, values: Parts, work: Work, context: Context) -> Answer:
    """Run the kernel called `name`, or for "auto" the fastest that can do the work."""
    if name == "auto" and not work.weights and chunks_pay(work):
        name = "chunked"
    kernel = choose(name, softcap=work.softcap is not None, weights=work.weights)
    return kernel.run(queries, keys, values, work, context)


def chunks_pay(work: Work) -> bool:
    """Long sequences whose scores would be held whole, or of which each query sees a small part."""
    queries, keys = work.mask.lengths
    narrow = 2 * work.mask.seen_by(FEWEST) <= keys
    return queries > FEWEST and queries * keys >= LONG and (work.softcap is not None or narrow)
