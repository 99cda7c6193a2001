"""One forward pass of encoder and decoder, compared with transformers: default, flex_attention, and compiled as a whole.

The model has the shapes of T5Gemma B-B with a vocabulary of 32000, sliding windows of 256 tokens and random weights.
transformers rejects sdpa for it, because sdpa does not support a softcap. Compiling the whole model with flex_attention fails
on a CPU in torch 2.13; without that, flex_attention compiles only the attention.

    python -m benchmarks.forward [--only CASE ...] [--runs N] [--threads 2] [--device cpu] [--quick]
"""

from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import pairform
from benchmarks import models
from benchmarks.cases import Benchmark, Case
from benchmarks.compare import Call, Make
from benchmarks.measure import limits
from benchmarks.options import Options
from benchmarks.rates import matrix_rate

CASES: list[Case] = [
    {"source": 512, "target": 128, "batch": 2, "dtype": "float32", "runs": 5},
    {"source": 512, "target": 128, "batch": 2, "dtype": "bfloat16", "runs": 5},
    {"source": 2048, "target": 128, "batch": 2, "dtype": "bfloat16", "runs": 3},
    {"source": 8192, "target": 128, "batch": 1, "dtype": "bfloat16", "runs": 1, "apart": True},
]
ON_A_GPU: list[Case] = [
    {
        "preset": preset,
        "source": 2048,
        "target": 128,
        "batch": 2,
        "dtype": "bfloat16",
        "runs": 5,
        "folder": preset,
        "tolerance": 0.1,
    }
    for preset in ("t5gemma-2b-2b", "t5gemma-9b-2b")
]
KERNELS = "flex", "chunked", "eager"
"""Measured apart on a GPU, where `auto` chooses among them."""
QUICK: list[Case] = [{"source": 24, "target": 8, "batch": 2, "dtype": "float32"}]


def write(folder: Path, case: Case, options: Options) -> None:
    models.write(models.published(case), folder, case["dtype"], options.device)


def settings(folder: Path, case: Case, options: Options) -> Mapping[str, Make]:
    """Settings of one library share their weights, except for those that change the model."""
    device = options.device
    default = cache(lambda: models.theirs(folder, device))
    patch = models.patch_for(case)
    ours = cache(lambda: models.ours(folder, device, patch))

    def forward(model: Callable[[], Any]) -> Call:
        return passes(model(), models.inputs(case, device))

    table: dict[str, Make] = {
        "pairform": lambda: forward(ours),
        "pairform compiled": lambda: forward(lambda: models.ours(folder, device, patch, compiled=True)),
        **{f"pairform {kernel}": partial(with_kernel, kernel, ours, case, device) for kernel in KERNELS},
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
    if "preset" in case:  # of the larger one, a GPU of 80 GB holds two copies
        names |= {f"pairform {kernel}" for kernel in KERNELS}
        return names | ({"pairform compiled", "transformers flex"} if case["preset"] == "t5gemma-2b-2b" else set())
    names.add("pairform compiled")
    if limits():  # torch 2.13: flex_attention ends the process, no code is cached
        return names
    names.add("transformers flex")
    return names | ({"transformers compiled"} if case["source"] <= 512 or options.device != "cpu" else set())


def with_kernel(kernel: str, model: Callable[[], Any], case: Case, device: str) -> Call:
    """A forward pass of the shared model with one attention kernel."""
    call = passes(loaded := model(), models.inputs(case, device))

    def run() -> Tensor:
        loaded.use_kernel(kernel)
        try:
            return call()
        finally:
            loaded.use_kernel("auto")

    return run


def passes(model: Any, inputs: dict[str, Tensor]) -> Call:
    @torch.no_grad()
    def call() -> Tensor:
        logits: Tensor = model(**inputs).logits
        return logits

    return call


def more(case: Case, options: Options, result: Mapping[str, Any]) -> dict[str, Any]:
    """The share of the measured matrix rate that each setting reaches."""
    dtype = getattr(torch, case["dtype"])
    spec = models.published(case)
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
    on_a_gpu=ON_A_GPU,
    write=write,
    settings=settings,
    name=lambda case: models.name("forward", case),
    what=lambda case: (
        f"{models.shapes(case)} shapes, source {case['source']}, target {case['target']}, batch {case['batch']}, "
        f"{case['dtype']}: forward of encoder and decoder"
    ),
    more=more,
)

if __name__ == "__main__":
    BENCHMARK.run(__doc__)
