"""What a model costs: parameters, FLOPs, bytes and seconds."""

import itertools
import time
from pathlib import Path
from typing import Any

import torch

from pairform.assemblies.analysis.inspection import inspect
from pairform.assemblies.modeling.model import Model
from pairform.assemblies.specs.model import ModelSpec
from pairform.registry import read_text
from pairform.training.data.batches import Lengths, lengths_read, prompt

REPEATS = 3
STATUS, MARK = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET = "5"
"""Written to `MARK`, it sets Linux's highest resident size of this process to the present one."""


def costs(spec: ModelSpec, lengths: Lengths, dtype: str) -> dict[str, int]:
    """Parameters, and the FLOPs and cache bytes of one forward pass over a source and a target of these lengths."""
    source, target = lengths_read(spec, lengths)
    found = inspect(spec, source_length=source, target_length=target, dtype=getattr(torch, dtype))
    totals = {"parameters": found.parameters, "flops": found.flops, "cache_bytes": found.cache_bytes}
    return {name: parts["total"] for name, parts in totals.items()}


def memory_in_use(device: str) -> int | None:
    """Bytes that this process holds now, and from which `peak_memory` counts anew: of the accelerator's memory, or on a CPU as
    Linux counts them. None where the system does not say."""
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    try:
        MARK.write_text(RESET)
    except OSError:
        return None
    return resident("VmRSS")


def peak_memory(device: str) -> int | None:
    """The most bytes that this process held at once since `memory_in_use`."""
    return torch.cuda.max_memory_allocated(device) if torch.device(device).type == "cuda" else resident("VmHWM")


def resident(field: str) -> int | None:
    """A size in this process's status, in bytes."""
    try:
        lines = dict(line.split(":", 1) for line in read_text(STATUS).splitlines())
        return int(lines[field].split()[0]) * 1024
    except (OSError, KeyError):
        return None


def writing_seconds(model: Model, source: list[int], lengths: Lengths) -> float:
    """Seconds in which a target is written for a source, greedily and each as long as `lengths` says: the least of a few, after
    one that is not counted. `source` gives the tokens, again from its first one on where it is too short."""
    longest = list(itertools.islice(itertools.cycle(source), lengths[0]))
    ids = torch.tensor([prompt(longest, model.spec)], device=next(model.parameters()).device)
    taken: list[float] = []
    for _ in range(REPEATS + 1):
        began = time.perf_counter()
        write(model, ids, lengths[1])
        taken.append(time.perf_counter() - began)
    return min(taken[1:])


def write(model: Model, ids: Any, length: int) -> None:
    """No token ends the text, so that every model writes as many; `generate` computes as in evaluation."""
    model.generate(ids, torch.ones_like(ids), max_new_tokens=length, eos_token_id=())
