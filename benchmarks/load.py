"""Load a 1.2 GB folder, each setting in a separate process: time and memory until each weight has been read once.

Reading the weights is included, because a memory-mapped file costs its time and memory only when it is read. The files are in
the page cache for both libraries.

    python -m benchmarks.load [--runs N] [--threads 2] [--device cpu] [--quick]
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import models
from benchmarks.cases import Benchmark, Case
from benchmarks.compare import Call, Make
from benchmarks.options import Options

CASES: list[Case] = [{"vocabulary": 256000, "dtype": "bfloat16", "runs": 3, "apart": True}]
QUICK: list[Case] = [{"vocabulary": 500, "dtype": "float32", "apart": True}]


def write(folder: Path, case: Case, options: Options) -> None:
    models.write(models.t5gemma(case["vocabulary"], quick=case["vocabulary"] < 1000), folder, case["dtype"])


def settings(folder: Path, case: Case, options: Options) -> Mapping[str, Make]:
    def loads(read: Callable[[Path, str], Any]) -> Call:
        models.inputs({"batch": 1, "source": 1, "target": 1}, options.device)  # what starts torch is not loading
        kept: list[Any] = []

        def call() -> Tensor:
            """The maximum of each weight, which needs no extra memory. The weights stay in memory while it is measured."""
            kept.append(read(folder, options.device))
            return torch.stack([parameter.detach().amax() for parameter in kept[0].parameters()]).sort().values

        return call

    return {"pairform": lambda: loads(models.ours), "transformers": lambda: loads(models.theirs)}


BENCHMARK = Benchmark(
    module="benchmarks.load",
    cases=CASES,
    quick=QUICK,
    write=write,
    settings=settings,
    name=lambda case: f"load-{case['dtype']}",
    what=lambda case: f"T5Gemma B-B, vocabulary {case['vocabulary']}, {case['dtype']}: a folder loaded and read",
)

if __name__ == "__main__":
    BENCHMARK.run(__doc__)
