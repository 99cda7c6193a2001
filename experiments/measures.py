"""What a model costs: parameters, FLOPs, bytes and seconds."""

import resource
import time
from typing import Any

import torch

from pairform.assemblies.inspection import inspect
from pairform.assemblies.model import Model
from pairform.assemblies.specs import ModelSpec
from pairform.experiments.batches import lengths_read, prompt

REPEATS = 3


def costs(spec: ModelSpec, lengths: tuple[int, int], dtype: str) -> dict[str, int]:
    """Parameters, and the FLOPs and cache bytes of one forward pass over the longest source and target."""
    source, target = lengths_read(spec, lengths)
    found = inspect(spec, source_length=source, target_length=target, dtype=getattr(torch, dtype))
    totals = {"parameters": found.parameters, "flops": found.flops, "cache_bytes": found.cache_bytes}
    return {name: parts["total"] for name, parts in totals.items()}


def memory_in_use(device: str) -> int:
    """Bytes that this process holds now: of the accelerator's memory, or on a CPU at most so far."""
    return torch.cuda.memory_allocated(device) if torch.device(device).type == "cuda" else resident()


def peak_memory(device: str) -> int:
    """The most bytes that this process held at once."""
    return torch.cuda.max_memory_allocated(device) if torch.device(device).type == "cuda" else resident()


def resident() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def writing_seconds(model: Model, source: list[int], length: int) -> float:
    """Seconds in which `length` tokens are written for one source, greedily: the least of a few, after one not counted."""
    model.eval()
    ids = torch.tensor([prompt(source, model.spec)], device=next(model.parameters()).device)
    taken: list[float] = []
    for _ in range(REPEATS + 1):
        began = time.perf_counter()
        write(model, ids, length)
        taken.append(time.perf_counter() - began)
    return min(taken[1:])


def write(model: Model, ids: Any, length: int) -> None:
    """No token ends the text, so that every model writes as many."""
    model.generate(ids, torch.ones_like(ids), max_new_tokens=length, eos_token_id=())
