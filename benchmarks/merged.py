"""T5Gemma 2 without pictures: our merged attention, compared with our separate attention and with transformers.

The shapes are those of T5Gemma 2 270M-270M without its vision tower and with a vocabulary of 32000. The separate variant has
both self-attention and cross-attention, so it has more weights. transformers implements only merged attention.

    python -m benchmarks.merged [--only CASE ...] [--runs N] [--threads 2] [--device cpu] [--quick]
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch

import pairform
from benchmarks import models
from benchmarks.cases import Benchmark, Case
from benchmarks.compare import Call, Make
from benchmarks.forward import passes
from benchmarks.options import Options
from pairform.assemblies.specs.model import ModelSpec

CASES: list[Case] = [
    {"source": source, "target": 128, "batch": 2, "dtype": "bfloat16", "runs": runs} for source, runs in ((512, 5), (2048, 3))
]
ON_A_GPU: list[Case] = [
    {"preset": "t5gemma2-4b-4b", "source": 2048, "target": 128, "batch": 2, "dtype": "bfloat16", "runs": 5, "tolerance": 0.1}
]
QUICK: list[Case] = [{"source": 24, "target": 8, "batch": 2, "dtype": "float32"}]


SEPARATE = "pairform separate"
SMALLEST = "t5gemma2-270m-270m"
END, IMAGE, BEGIN = (models.VOCABULARY - 1 - place for place in range(3))


def merged(case: Case) -> ModelSpec:
    """transformers' T5Gemma 2 always has a vision tower. This one is as small as possible and gets no input."""
    attention = {"heads": 2, "kv_heads": 2, "head_dim": 16}
    tower = {"width": 32, "depth": 1, "layer": {"branches": {"self_attention": attention, "feed_forward": {"hidden": 32}}}}
    vision = {"tower": tower, "image_token": IMAGE, "begin_token": BEGIN, "end_token": END}
    stack: dict[str, Any] = {"embedding": {"end_of_image": END}} | (models.TINY if case["source"] < 128 else {})
    patch = {"vocabulary": models.VOCABULARY, "encoder": stack | {"vision": vision}, "decoder": stack}
    return pairform.patch(pairform.load_spec(case.get("preset", SMALLEST)), patch)


def separate(case: Case) -> ModelSpec:
    """The same model with separate cross-attention that has the same heads."""
    spec = merged(case)
    attention = spec.document()["decoder"]["layer"]["branches"]["self_attention"]
    cross = {key: attention[key] for key in ("heads", "kv_heads", "head_dim", "scale", "qk_norm")}
    branches = {"self_attention": {"name": "self_attention"}, "cross_attention": {"name": "cross_attention", **cross}}
    return pairform.patch(spec, {"decoder": {"layer": {"branches": branches}}})


def write(folder: Path, case: Case, options: Options) -> None:
    folder.mkdir()
    models.write(merged(case), folder / "merged", case["dtype"], options.device)
    pairform.save(models.random(separate(case), options.device, getattr(torch, case["dtype"])), folder / "separate")


def settings(folder: Path, case: Case, options: Options) -> Mapping[str, Make]:
    device = options.device
    default = cache(lambda: models.theirs(folder / "merged", device))

    def forward(model: Any) -> Call:
        return passes(model, models.inputs(case, device))

    table: dict[str, Make] = {
        "pairform": lambda: forward(models.ours(folder / "merged", device, patch=None)),
        "pairform compiled": lambda: forward(models.ours(folder / "merged", device, patch=None, compiled=True)),
        SEPARATE: lambda: forward(models.ours(folder / "separate", device, patch=None)),
        "transformers": lambda: forward(default()),
        "transformers compiled": lambda: forward(torch.compile(default())),
    }
    left = {name for name in table if options.quick and "compiled" in name}
    if case["source"] > 512:  # compiling takes minutes, and most of the time goes to sdpa
        left.add("transformers compiled")
    return {name: make for name, make in table.items() if name not in left}


def more(case: Case, options: Options, result: Mapping[str, Any]) -> dict[str, Any]:
    """Our merged attention compared with our separate attention."""
    found = result["settings"]
    return {"speedup_over_separate": round(found[SEPARATE]["median_seconds"] / found["pairform"]["median_seconds"], 2)}


BENCHMARK = Benchmark(
    module="benchmarks.merged",
    cases=CASES,
    quick=QUICK,
    on_a_gpu=ON_A_GPU,
    write=write,
    settings=settings,
    name=lambda case: models.name("merged", case),
    what=lambda case: (
        f"T5Gemma 2 {case.get('preset', SMALLEST).removeprefix('t5gemma2-').upper()} shapes, text, source {case['source']}, "
        f"target {case['target']}, batch {case['batch']}, {case['dtype']}: forward of encoder and decoder"
    ),
    more=more,
    others=frozenset({SEPARATE}),
)

if __name__ == "__main__":
    BENCHMARK.run(__doc__)
