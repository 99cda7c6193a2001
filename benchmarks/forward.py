"""One forward pass of encoder and decoder, compared with transformers: default, flex_attention, and compiled as a whole.

The model has the shapes of T5Gemma B-B with a vocabulary of 32000, sliding windows of 256 tokens and random weights.
transformers rejects sdpa for it, because sdpa does not support a softcap. Compiling the whole model with flex_attention fails
on a CPU in torch 2.13; without that, flex_attention compiles only the attention.

    python -m benchmarks.forward [--only CASE ...] [--runs N] [--threads 2] [--device cpu] [--quick]
"""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import pairform
from benchmarks import models
from benchmarks.cases import Benchmark, Case
from benchmarks.compare import Call, Make
from benchmarks.options import Options
from benchmarks.rates import matrix_rate

CASES: list[Case] = [
    {"source": 512, "target": 128, "batch": 2, "dtype": "float32", "runs": 5},
    {"source": 512, "target": 128, "batch": 2, "dtype": "bfloat16", "runs": 5},
    {"source": 2048, "target": 128, "batch": 2, "dtype": "bfloat16", "runs": 3},
    {"source": 8192, "target": 128, "batch": 1, "dtype": "bfloat16", "runs": 1, "apart": True},
]
QUICK: list[Case] = [{"source": 24, "target": 8, "batch": 2, "dtype": "float32"}]


def write(folder: Path, case: Case) -> None:
    models.write(models.t5gemma(models.VOCABULARY, quick=case["source"] < 128), folder, case["dtype"])


def settings(folder: Path, case: Case, options: Options) -> Mapping[str, Make]:
    """Compiled settings share their weights with the plain ones."""
    device = options.device
    default = cache(lambda: models.theirs(folder, device))
    ours = cache(lambda: models.ours(folder, device))

    def forward(model: Callable[[], Any]) -> Call:
        return passes(model(), models.inputs(case, device))

    table: dict[str, Make] = {
        "pairform": lambda: forward(ours),
        "pairform compiled": lambda: forward(lambda: models.ours(folder, device, compiled=True)),
        "transformers": lambda: forward(default),
        "transformers flex": lambda: forward(lambda: models.theirs(folder, device, "flex_attention")),
        "transformers compiled": lambda: forward(lambda: torch.compile(default())),
    }
    return {name: make for name, make in table.items() if name in chosen(case, options)}


def chosen(case: Case, options: Options) -> set[str]:
    """Names of the settings to run. Compiling takes a minute on a CPU, so only settings that may be the fastest run."""
    names = {"pairform", "transformers"}
    if options.quick or (case["dtype"] == "float32" and options.device == "cpu"):
        return names
    names |= {"pairform compiled", "transformers flex"}
    return names | ({"transformers compiled"} if case["source"] <= 512 or options.device != "cpu" else set())


def passes(model: Any, inputs: dict[str, Tensor]) -> Call:
    @torch.no_grad()
    def call() -> Tensor:
        logits: Tensor = model(**inputs).logits
        return logits

    return call


def more(case: Case, options: Options, result: Mapping[str, Any]) -> dict[str, Any]:
    """The share of the measured matrix rate that each setting reaches."""
    dtype = getattr(torch, case["dtype"])
    spec = models.t5gemma(models.VOCABULARY, quick=options.quick)
    lengths = {"source_length": case["source"], "target_length": case["target"]}
    flops = pairform.inspect(spec, batch=case["batch"], dtype=dtype, **lengths).flops["total"]
    rate = matrix_rate(dtype, options)
    done = {
        name: round(flops / found["median_seconds"] / rate, 2)
        for name, found in result["settings"].items()
        if "median_seconds" in found
    }
    return {"flops": flops, "matrix_rate": rate, "share_of_matrix_rate": done}


BENCHMARK = Benchmark(
    module="benchmarks.forward",
    cases=[case | {"folder": case["dtype"]} for case in CASES],
    quick=QUICK,
    write=write,
    settings=settings,
    name=lambda case: f"forward-{case['source']}-{case['batch']}-{case['dtype']}",
    what=lambda case: (
        f"T5Gemma B-B shapes, source {case['source']}, target {case['target']}, batch {case['batch']}, {case['dtype']}: "
        "forward of encoder and decoder"
    ),
    more=more,
)

if __name__ == "__main__":
    BENCHMARK.run(__doc__)
