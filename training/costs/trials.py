"""Costs of a trial: parameters, FLOPs, bytes and seconds."""

import functools
import itertools
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor

from pairform.assemblies.analysis.inspection import Inspection, inspect
from pairform.assemblies.modeling.model import Model
from pairform.assemblies.specs.model import ModelSpec
from pairform.registry import read_text
from pairform.training.data.batches import Lengths, lengths_read, prompt

REPEATS = 3
STATUS, MARK = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET = "5"
"""Written to `MARK`, it resets Linux's peak resident size of this process to the current size."""


@functools.lru_cache(maxsize=256)  # trials that differ in their settings or seeds share a model
def costs(spec: ModelSpec, lengths: Lengths, dtype: str) -> Mapping[str, int]:
    """Parameters, and the FLOPs and cache bytes of a forward pass over one source and target of these lengths."""
    found = inspected(spec, lengths, dtype)
    totals = {"parameters": found.parameters, "flops": found.flops, "cache_bytes": found.cache_bytes}
    return MappingProxyType({name: parts["total"] for name, parts in totals.items()})


def training_costs(spec: ModelSpec, lengths: Lengths, dtype: str, examples: int) -> dict[str, int]:
    """What a scaling law needs to know of a training.

    Args:
        spec: The model.
        lengths: Tokens of the longest source and target.
        dtype: Of the computation.
        examples: How many are trained on.

    Returns:
        `non_embedding_parameters`: without embeddings of tokens and positions and without the head; `training_flops`: of
        examples of the longest lengths, where a backward pass has twice the FLOPs of a forward pass.
    """
    found = inspected(spec, lengths, dtype)
    parameters = found.parameters["total"] - found.parameters["embedding"] - found.parameters["head"]
    return {"non_embedding_parameters": parameters, "training_flops": 3 * found.flops["total"] * examples}


@functools.lru_cache(maxsize=256)
def inspected(spec: ModelSpec, lengths: Lengths, dtype: str) -> Inspection:
    """The inspection of a model at these lengths."""
    source, target = lengths_read(spec, lengths)
    return inspect(spec, source_length=source, target_length=target, dtype=getattr(torch, dtype))


def memory_in_use(device: str) -> int | None:
    """Bytes of memory in use now; resets the peak that `peak_memory` returns.

    Allocated memory on an accelerator, resident memory of this process on a CPU. None if the system does not report it.
    """
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    try:
        MARK.write_text(RESET)
    except OSError:
        return None
    return resident("VmRSS")


def peak_memory(device: str) -> int | None:
    """Peak bytes in use since `memory_in_use`."""
    return torch.cuda.max_memory_allocated(device) if torch.device(device).type == "cuda" else resident("VmHWM")


def resident(field: str) -> int | None:
    """A field of this process's status, in bytes."""
    try:
        lines = dict(line.split(":", 1) for line in read_text(STATUS).splitlines())
        return int(lines[field].split()[0]) * 1024
    except (OSError, KeyError):
        return None


def writing_seconds(model: Model, source: list[int], lengths: Lengths) -> float:
    """Latency: the fewest seconds of `REPEATS` greedy generations of one target, after a warm-up.

    Args:
        model: The model; its mode does not matter, since `generate` always computes as in evaluation.
        source: Token ids, repeated to the length of the source.
        lengths: Tokens of the source and of the target.
    """
    repeated = list(itertools.islice(itertools.cycle(source), lengths[0]))
    ids = torch.tensor([prompt(repeated, model.spec)], device=next(model.parameters()).device)
    seconds: list[float] = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        write(model, ids, lengths[1])
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


def write(model: Model, ids: Tensor, length: int) -> None:
    """Generate `length` tokens. No token ends the text, so that every model generates as many."""
    model.generate(ids, torch.ones_like(ids), max_new_tokens=length, eos_token_id=())
