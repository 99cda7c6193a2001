"""Models of three widths on sequences of three lengths in two dtypes, eager: forward pass and training step.

The models have T5Gemma's blocks, 2 layers in each stack, and random weights; source and target have the same length. Every cell
is compared with transformers' default. Run it with one thread: more only add noise at small sizes.

    python -m benchmarks.sizes [--only CASE ...] [--runs N] [--threads 1] [--device cpu] [--quick]
"""

from collections.abc import Mapping
from itertools import product
from pathlib import Path

from benchmarks import models
from benchmarks.cases import Benchmark, Case
from benchmarks.compare import Make, relative
from benchmarks.options import Options
from benchmarks.small import VOCABULARY, WORK, repeated, spec
from benchmarks.train import largest_relative

HEADS = {64: (4, 2, 16), 256: (4, 2, 64), 768: (12, 4, 64)}
"""Query heads, key heads and head dimension by width."""
LENGTHS = (32, 128, 512)
CASES: list[Case] = [
    {
        "work": work,
        "width": width,
        "source": length,
        "target": length,
        "batch": 2,
        "vocabulary": VOCABULARY,
        "dtype": dtype,
        "runs": 9,
    }
    | {"times": max(1, 2**14 // (width * length)), "folder": f"{width}-{dtype}"}
    for work, width, length, dtype in product(("forward", "step"), HEADS, LENGTHS, ("float32", "bfloat16"))
]
QUICK: list[Case] = [case | {"source": 6, "target": 4} for case in CASES if (case["width"], case["source"]) == (64, 32)]


def settings(folder: Path, case: Case, options: Options) -> Mapping[str, Make]:
    """Both libraries load the same weights. All windows are longer than the sequences."""
    work, device = WORK[case["work"]], options.device
    return {
        "pairform": lambda: repeated(work(models.ours(folder, device, patch=None), case, device, {}), case),
        "transformers": lambda: repeated(work(models.theirs(folder, device), case, device, {}), case),
    }


BENCHMARK = Benchmark(
    module="benchmarks.sizes",
    cases=CASES,
    quick=QUICK,
    write=lambda folder, case, _: models.write(spec(case["width"], 2, HEADS[case["width"]], 1023), folder, case["dtype"]),
    settings=settings,
    name=lambda case: f"sizes-{case['work']}-{case['width']}-{case['source']}-{case['dtype']}",
    what=lambda case: (
        f"T5Gemma's blocks, width {case['width']}, 2 + 2 layers, source {case['source']}, target {case['target']}, "
        f"batch {case['batch']}, {case['dtype']}, eager: {case['work']}, {case['times']} times"
    ),
    difference=lambda _, case, __: largest_relative if case["work"] == "step" else relative,
    memory=False,
)

if __name__ == "__main__":
    BENCHMARK.run(__doc__)
