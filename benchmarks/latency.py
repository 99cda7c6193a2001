"""The latencies of the T5Gemma paper: one query at batch 1, as ratios to Gemma 2 2B. Needs a GPU.

The paper (arXiv 2504.06225, figure on quality against latency) answers 200 questions of GSM8K with trained weights. Here the
weights are random and each question and each answer has 128 tokens, so only the ratios are comparable.

    python -m benchmarks.latency --device cuda [--runs 5] [--small]
"""

import statistics
import sys
from typing import Any

import torch
from torch import Tensor

import pairform
from benchmarks import models
from benchmarks.compare import rounded, timed
from benchmarks.measure import peers, save
from benchmarks.options import Options, parse
from pairform.assemblies.specs.model import ModelSpec

PAPER = {"gemma-2-2b": 915, "t5gemma-2b-2b": 805, "t5gemma-9b-2b": 962, "gemma-2-9b": 2578, "t5gemma-9b-9b": 2727}
"""Milliseconds per query, read off the figure."""
FIRST = next(iter(PAPER))


def main(arguments: list[str] | None = None) -> None:
    arguments = sys.argv[1:] if arguments is None else arguments
    small = {"--small", "--quick"} & set(arguments)
    options = parse(__doc__, [word for word in arguments if word not in small] + ["--quick"] * bool(small))
    if options.device == "cpu" and not small:
        print("latency: needs a GPU (--device cuda); --small checks the script on a CPU")
        return
    length = 4 if small else 128
    seconds = {name: measured(name, length, options) for name in PAPER}
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    settings = {
        name: {
            "seconds": [rounded(value) for value in taken],
            "median_seconds": rounded(medians[name]),
            "ratio": round(medians[name] / medians[FIRST], 2),
            "ratio_of_paper": round(PAPER[name] / PAPER[FIRST], 2),
        }
        for name, taken in seconds.items()
    }
    case = {"source": length, "tokens": length, "batch": 1, "dtype": "bfloat16"}
    what = f"a query of {length} tokens answered by {length}, batch 1, bfloat16, random weights: ratios to {FIRST}"
    result: dict[str, Any] = {"machine": peers(options.threads), "what": what, "case": case, "settings": settings}
    save("latency", result, options.results, options.device)


def measured(name: str, length: int, options: Options) -> list[float]:
    """Seconds of each run, after a warm-up. The model is freed before the next one is built."""
    model = models.random(shapes(name, small=options.quick), options.device, torch.bfloat16).eval()
    read = models.tokens(1, length, options.device, 0, 1000)

    def call() -> Tensor:
        written: Tensor = model.generate(read, max_new_tokens=length, eos_token_id=())
        return written

    call()
    return [timed(call)[0] for _ in range(options.runs or (1 if options.quick else 5))]


def shapes(name: str, *, small: bool) -> ModelSpec:
    spec = pairform.load_spec(name)
    if not small:
        return spec
    stacks = dict.fromkeys(spec.stacks, models.TINY)
    return pairform.patch(spec, {"vocabulary": 1000, **stacks})


if __name__ == "__main__":
    main()
