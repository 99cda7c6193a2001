"""A small model, as in ablations, compared with transformers: forward pass, training step, greedy decoding; the first two also
compiled.

The model has T5Gemma's blocks at a width of 64, 4 layers in each stack, and random weights. It also runs as a class of
transformers, over the bridge. A call repeats its work, since one
pass takes milliseconds. Run it with one thread: more only add noise at this size.

    python -m benchmarks.small [--only CASE ...] [--runs N] [--threads 1] [--device cpu] [--quick]
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import pairform
from benchmarks import models
from benchmarks.cases import Benchmark, Case
from benchmarks.compare import Call, Make
from benchmarks.options import Options
from benchmarks.train import step
from pairform.assemblies.specs.model import ModelSpec
from pairform.interop.transformers import PairformConfig, PairformForConditionalGeneration

VOCABULARY = 1000
SHAPE: Case = {"vocabulary": VOCABULARY, "source": 32, "target": 32, "batch": 8, "dtype": "float32", "runs": 15}
CASES: list[Case] = [SHAPE | {"work": work, "times": times} for work, times in (("forward", 20), ("step", 10), ("decode", 3))]
QUICK: list[Case] = [case | {"source": 6, "target": 4, "batch": 2, "times": 1} for case in CASES]


def spec(width: int = 64, depth: int = 4, heads: tuple[int, int, int] = (4, 2, 16), window: int = 255) -> ModelSpec:
    """T5Gemma's blocks. `heads` are the numbers of query and key heads, and the head dimension."""
    sizes = dict(zip(("heads", "kv_heads", "head_dim"), heads, strict=True))
    branches = {"self_attention": sizes | {"mask": {"window": [window, window]}}, "feed_forward": {"hidden": 4 * width}}
    stack = {"width": width, "depth": depth, "cycle": [{}]}
    patch = {"vocabulary": VOCABULARY, "encoder": stack | {"layer": {"branches": branches}}}
    patch["decoder"] = stack | {"layer": {"branches": branches | {"cross_attention": sizes}}}
    return pairform.patch(pairform.load_spec("t5gemma-s-s"), patch)


def settings(folder: Path, case: Case, options: Options) -> Mapping[str, Make]:
    """Both libraries load the same weights. All windows are longer than the sequences."""
    work, device = WORK[case["work"]], options.device

    def ours() -> Call:
        return repeated(work(models.ours(folder, device, patch=None), case, device, {"eos_token_id": ()}), case)

    def theirs() -> Call:
        return repeated(work(models.endless(models.theirs(folder, device)), case, device, {"do_sample": False}), case)

    def bridged() -> Call:
        model = models.ours(folder, device, patch=None)
        same = PairformForConditionalGeneration(PairformConfig(model.spec))
        same.load_state_dict(model.state_dict())
        return repeated(work(models.endless(same.to(device)), case, device, {"do_sample": False}), case)

    def compiled(load: Callable[[], Any]) -> Call:
        return repeated(work(torch.compile(load()), case, device, {}), case)

    table: dict[str, Make] = {"pairform": ours, "pairform in transformers": bridged, "transformers": theirs}
    if case["work"] == "decode" or options.quick:
        return table
    return table | {
        "pairform compiled": lambda: compiled(lambda: models.ours(folder, device, patch=None)),
        "transformers compiled": lambda: compiled(lambda: models.theirs(folder, device)),
    }


def repeated(call: Call, case: Case) -> Call:
    def calls() -> Tensor:
        return [call() for _ in range(case["times"])][-1]

    return calls


def passes(model: Any, case: Case, device: str, options: Mapping[str, Any]) -> Call:
    inputs = {name: ids % VOCABULARY for name, ids in models.inputs(case, device).items()}

    @torch.no_grad()
    def call() -> Tensor:
        logits: Tensor = model(**inputs).logits
        return logits

    return call


def steps(model: Any, case: Case, device: str, options: Mapping[str, Any]) -> Call:
    return step(model, model, case, device)


def decodes(model: Any, case: Case, device: str, options: Mapping[str, Any]) -> Call:
    read = models.tokens(case["batch"], case["source"], device, 0, VOCABULARY)

    def call() -> Tensor:
        written: Tensor = model.generate(read, attention_mask=torch.ones_like(read), max_new_tokens=case["target"], **options)
        return written.float()

    return call


WORK: Mapping[str, Callable[[Any, Case, str, Mapping[str, Any]], Call]] = {
    "forward": passes,
    "step": steps,
    "decode": decodes,
}

BENCHMARK = Benchmark(
    module="benchmarks.small",
    cases=CASES,
    quick=QUICK,
    write=lambda folder, case, _: models.write(spec(), folder, case["dtype"]),
    settings=settings,
    name=lambda case: f"small-{case['work']}",
    what=lambda case: (
        f"T5Gemma's blocks, width 64, 4 + 4 layers, source {case['source']}, target {case['target']}, batch {case['batch']}, "
        f"{case['dtype']}: {case['work']}, {case['times']} times"
    ),
    memory=False,
)

if __name__ == "__main__":
    BENCHMARK.run(__doc__)
