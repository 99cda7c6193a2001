"""Compare the settings of a case: outputs that must agree, median times, peak memory, ratios to transformers.

A setting is a name and a function that makes its callable. Names start with the library: `pairform`, `pairform compiled`,
`transformers` (its default, and the reference), `transformers flex`. A setting that cannot run, or whose output differs from
the reference, stays in the result with the reason but is not used as a peer.
"""

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

REFERENCE = "transformers"
Call = Callable[[], Tensor]
Make = Callable[[], Call]
Difference = Callable[[Tensor, Tensor], float]


@dataclass
class Timed:
    """Measurements of one setting."""

    seconds: list[float] = field(default_factory=list)
    first: float | None = None
    difference: float | None = None
    peak_bytes: int | None = None
    refused: str | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def document(self) -> dict[str, Any]:
        if self.refused is not None:
            return {"refused": self.refused}
        document: dict[str, Any] = {
            "seconds": [rounded(value) for value in self.seconds],
            "median_seconds": rounded(self.median),
        }
        if self.first is not None:
            document["first_seconds"] = rounded(self.first)
        if self.difference is not None:
            document["difference"] = float(f"{self.difference:.2g}")
        if self.peak_bytes is not None:
            document["peak_megabytes"] = round(self.peak_bytes / 1e6)
        return document


def rounded(value: float) -> float:
    return float(f"{value:.4g}")


def timed(call: Call) -> tuple[float, Tensor]:
    gc.collect()
    synchronise()
    begin = time.perf_counter()
    answer = call()
    synchronise()
    return time.perf_counter() - begin, answer


def synchronise() -> None:
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # else nothing runs there, and to ask would start CUDA, which takes memory
        torch.cuda.synchronize()


def forget_peak_of_gpu() -> int | None:
    """Reset a GPU's peak of allocated memory and return the bytes in use; None where none is used. On a CPU, memory is measured
    in a process for each setting."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return None
    synchronise()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def take_turns(settings: Mapping[str, Make], runs: int, judge: "Judge") -> dict[str, Timed]:
    """Time every setting `runs` times in turn, after a first call of each that compiles and gives the output to compare."""
    found = {name: Timed() for name in settings}
    calls: dict[str, Call] = {}
    answers: dict[str, Tensor] = {}
    for name, make in settings.items():
        try:
            calls[name] = make()
            found[name].first, answers[name] = timed(calls[name])
        except Exception as error:
            if name in (REFERENCE, "pairform"):
                raise
            found[name].refused = f"{type(error).__name__}: {first_line(error)}"
        print(f"  {name}: first call {found[name].refused or rounded(found[name].first or 0)}", flush=True)
    judge(found, answers)
    for _ in range(runs):
        for name in [name for name in calls if found[name].refused is None]:
            in_use = forget_peak_of_gpu()
            found[name].seconds.append(timed(calls[name])[0])
            if in_use is not None:
                found[name].peak_bytes = max(torch.cuda.max_memory_allocated() - in_use, found[name].peak_bytes or 0)
            print(f"  {name}: {found[name].seconds[-1]:.4g} s", flush=True)
    return found


@dataclass(frozen=True)
class Judge:
    """Compares each output with the reference, except for `others`. A wrong output of ours is an error; one of transformers
    excludes the setting."""

    difference: Difference
    tolerance: float
    others: frozenset[str] = frozenset()

    def __call__(self, found: Mapping[str, Timed], answers: Mapping[str, Tensor]) -> None:
        for name in answers.keys() - {REFERENCE} - self.others:
            apart = found[name].difference = self.difference(answers[REFERENCE], answers[name])
            if apart <= self.tolerance:
                continue
            if name.startswith("pairform"):
                raise SystemExit(f"{name} differs from {REFERENCE} by {apart:.3g}, more than {self.tolerance:.3g}")
            found[name].refused = f"its answer differs by {apart:.2g}"


def first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else ""


def best_of_transformers(found: Mapping[str, Timed]) -> str:
    """Name of the fastest setting of transformers that ran and gave the right output."""
    able = [name for name, timed in found.items() if not name.startswith("pairform") and timed.refused is None]
    return min(able, key=lambda name: found[name].median)


def ratios(found: Mapping[str, Timed]) -> dict[str, Any]:
    """Speed and memory of each of our settings relative to transformers' default, and to its best if several were tried."""
    best = best_of_transformers(found)
    peers = {"default": found[REFERENCE]}
    if sum(not name.startswith("pairform") for name in found) > 1:
        peers["best"] = found[best]
    ours = {name: timed for name, timed in found.items() if name.startswith("pairform") and timed.refused is None}
    document: dict[str, Any] = {
        "best_of_transformers": best,
        "speedup": {
            name: {key: round(peer.median / timed.median, 2) for key, peer in peers.items()} for name, timed in ours.items()
        },
    }
    memory = {
        name: {key: round(timed.peak_bytes / peer.peak_bytes, 2) for key, peer in peers.items() if peer.peak_bytes}
        for name, timed in ours.items()
        if timed.peak_bytes is not None
    }
    return document | ({"memory_ratio": memory} if memory else {})


def relative(reference: Tensor, answer: Tensor) -> float:
    """The largest difference, in units of the reference's largest value."""
    reference, answer = reference.float(), answer.float()
    return float((answer - reference).abs().max() / reference.abs().max())
