"""A training step with a vocabulary of 256000, compared with transformers: default, and compiled as a whole.

The step consists of forward pass, loss and backward pass. Our model is compiled layer by layer. The optimiser step is not
timed, because both sides run the same code. Memory is the peak of the step beyond the weights, including the gradients.

    python -m benchmarks.train [--runs N] [--threads 2] [--device cpu] [--quick]
"""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import models
from benchmarks.cases import Benchmark, Case
from benchmarks.compare import Call, Make
from benchmarks.options import Options

CASES: list[Case] = [
    {"vocabulary": 256000, "source": 512, "target": 512, "batch": 4, "dtype": "bfloat16", "runs": 2, "apart": True}
]
"""In separate processes, because transformers takes 16 GB in addition to its weights."""
ON_A_GPU: list[Case] = [
    {"preset": "t5gemma-2b-2b", "vocabulary": 256000, "source": 512, "target": 512, "batch": 4, "dtype": "bfloat16"}
    | {"runs": 3, "folder": "t5gemma-2b-2b", "tolerance": 0.1}
]
QUICK: list[Case] = [{"vocabulary": 500, "source": 24, "target": 24, "batch": 2, "dtype": "float32"}]


def write(folder: Path, case: Case, options: Options) -> None:
    models.write(models.published(case, case["vocabulary"]), folder, case["dtype"], options.device)


def settings(folder: Path, case: Case, options: Options) -> Mapping[str, Make]:
    device, patch = options.device, models.patch_for(case)
    default, ours = cache(lambda: models.theirs(folder, device)), cache(lambda: models.ours(folder, device, patch))
    compiled = cache(lambda: models.ours(folder, device, patch, compiled=True))
    table: dict[str, Make] = {
        "pairform": lambda: step(ours(), ours(), case, device),
        "pairform compiled": lambda: step(compiled(), compiled(), case, device),
        "transformers": lambda: step(default(), default(), case, device),
        "transformers compiled": lambda: step(torch.compile(default()), default(), case, device),
    }
    left = {name for name in table if options.quick and "compiled" in name}
    left |= {"transformers compiled"} if "preset" in case else set()
    return {name: make for name, make in table.items() if name not in left}


def step(forward: Callable[..., Any], model: Any, case: Case, device: str) -> Call:
    """One training step. Its output is the loss and the norms of the embeddings' gradients."""
    read = models.tokens(case["batch"], case["source"], device, 0, case["vocabulary"])
    labels = models.tokens(case["batch"], case["target"], device, 1, case["vocabulary"])
    model.train()

    def call() -> Tensor:
        loss = forward(input_ids=read, attention_mask=torch.ones_like(read), labels=labels).loss
        loss.backward()
        norms = [table.weight.grad.float().norm() for table in tables(model)]
        model.zero_grad(set_to_none=True)
        return torch.stack([loss.detach().float(), *norms])

    return call


def tables(model: Any) -> list[Any]:
    """The embeddings of encoder and decoder, which the backward pass reaches last."""
    names = ("encoder", "decoder")
    inner = getattr(model, "model", model)
    stacks = [getattr(inner, name) for name in names]
    return [stack.embedding if hasattr(stack, "embedding") else stack.embed_tokens for stack in stacks]


def largest_relative(reference: Tensor, answer: Tensor) -> float:
    """The largest relative difference of any number."""
    return float(((answer - reference) / reference).abs().max())


BENCHMARK = Benchmark(
    module="benchmarks.train",
    cases=CASES,
    quick=QUICK,
    on_a_gpu=ON_A_GPU,
    write=write,
    settings=settings,
    name=lambda case: models.name("train", case, ("source", "target")),
    what=lambda case: (
        f"{models.shapes(case)} shapes, vocabulary {case['vocabulary']}, source {case['source']}, target {case['target']}, "
        f"batch {case['batch']}, {case['dtype']}: forward, loss and backward"
    ),
    difference=lambda *_: largest_relative,
)

if __name__ == "__main__":
    BENCHMARK.run(__doc__)
