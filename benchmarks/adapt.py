"""A step of `adapt`, compared with transformers: the same weights, rows, AdamW and clipping; vocabulary 256000.

`transformers` is its model in a loop written by hand, `transformers Trainer` the same in its Trainer, which needs accelerate.
Ours runs as in `pairform adapt run`, from shards. Memory is the peak of a step in addition to what the process used before it
read the weights: weights, gradients, optimiser and activations. On a GPU a call makes several steps, because starting the
Trainer takes longer than one; loss and gradient norm are compared as means over them.

    python -m benchmarks.adapt [--runs N] [--threads 2] [--device cpu] [--quick]
"""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import pairform
from benchmarks import models
from benchmarks.cases import Benchmark, Case
from benchmarks.compare import Call, Make
from benchmarks.options import Options
from benchmarks.runs import Training, by_hand, prepared, write_shards
from benchmarks.train import largest_relative
from pairform.blocks.functional.processor import onednn_multiplies
from pairform.training.adaptation.preparation import Prepared

SHAPES: Case = {"vocabulary": 256000, "source": 512, "target": 512, "runs": 2, "apart": True, "whole": True}
CASES: list[Case] = [{**SHAPES, "batch": 2, "dtype": "float32"}]
if torch.cuda.is_available() or onednn_multiplies(torch.bfloat16):  # others emulate it: a step would take ten minutes
    CASES.append({**SHAPES, "batch": 4, "dtype": "bfloat16"})
if torch.cuda.is_available():
    CASES.append({**SHAPES, "batch": 16, "dtype": "bfloat16"})
QUICK: list[Case] = [{"vocabulary": 500, "source": 24, "target": 24, "batch": 2, "dtype": "float32"}]
STEPS = 20
"""Of a call on a GPU."""
RATE, CLIP, BETAS = 1e-4, 1.0, (0.9, 0.95)


def steps(options: Options) -> int:
    return 1 if options.device == "cpu" else STEPS


def write(folder: Path, case: Case, options: Options) -> None:
    patch = {"vocabulary": case["vocabulary"]}
    if case["source"] < 128:
        patch |= dict.fromkeys(("encoder", "decoder"), models.TINY)
    models.write(pairform.patch(pairform.load_spec("t5gemma-b-b"), patch), folder, case["dtype"])
    write_shards(folder, 1, 64 * (case["source"] + case["target"]))


def settings(folder: Path, case: Case, options: Options) -> Mapping[str, Make]:
    table: dict[str, Make] = {
        "pairform": lambda: ours(folder, case, options, compiled=False),
        "pairform compiled": lambda: ours(folder, case, options, compiled=True),
        "transformers": lambda: theirs(folder, case, options),
        "transformers Trainer": lambda: trainer(folder, case, options),
    }
    return {name: make for name, make in table.items() if not (options.quick and "compiled" in name)}


def recipe(folder: Path, case: Case, **fields: Any) -> Prepared:
    objective = {"name": "prefix_lm", "source": case["source"], "target": case["target"]}
    batch = {"tokens": case["batch"] * (case["source"] + case["target"]), "micro": case["batch"]}
    optimizer = {"learning_rate": RATE, "betas": BETAS}
    return prepared(folder, folder, objective, batch, optimizer=optimizer, clip=CLIP, precision=case["dtype"], **fields)


def ours(folder: Path, case: Case, options: Options, *, compiled: bool) -> Call:
    lines: list[dict[str, Any]] = []
    run = Training.of(recipe(folder, case, compile=compiled), folder, options.device, lines.append)

    def call() -> Tensor:
        lines.clear()
        run.run(steps(options))
        return mean([(line["loss"], line["gradient_norm"]) for line in lines])

    return call


def mean(found: Sequence[tuple[float, float]]) -> Tensor:
    return torch.tensor(found).mean(0)


def optimizer_of(model: torch.nn.Module) -> torch.optim.AdamW:
    return torch.optim.AdamW(model.parameters(), RATE, betas=BETAS, weight_decay=0.0, fused=True)


def theirs(folder: Path, case: Case, options: Options) -> Call:
    model = models.theirs(folder, options.device).train()
    optimizer, batches = optimizer_of(model), iter(recipe(folder, case).batches.batches(0, 1000))

    def call() -> Tensor:
        made = (by_hand(model, optimizer, next(batches), CLIP, options.device) for _ in range(steps(options)))
        return mean([(loss.item(), norm.item()) for loss, norm in made])

    return call


def trainer(folder: Path, case: Case, options: Options) -> Call:
    """The Trainer, called with the rows of the steps."""
    from transformers import Trainer, TrainingArguments

    model = models.theirs(folder, options.device).train()
    arguments = TrainingArguments(
        output_dir=str(folder / "trainer"),
        per_device_train_batch_size=case["batch"],
        max_steps=steps(options),
        max_grad_norm=CLIP,
        lr_scheduler_type="constant",
        logging_steps=1,
        save_strategy="no",
        train_sampling_strategy="sequential",
        report_to=[],
        disable_tqdm=True,
        use_cpu=options.device == "cpu",
        dataloader_pin_memory=options.device != "cpu",
    )
    optimizer = optimizer_of(model)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    found = Trainer(model, arguments, optimizers=(optimizer, schedule))
    batches = iter(recipe(folder, case).batches.batches(0, 1000))

    def call() -> Tensor:
        rows = [micro.inputs for _ in range(steps(options)) for micro in next(batches).micro]
        found.train_dataset = [
            {name: tensor[row] for name, tensor in inputs.items()} for inputs in rows for row in range(len(inputs["labels"]))
        ]
        with contextlib.redirect_stdout(None):
            found.train()
        return mean([(line["loss"], line["grad_norm"]) for line in found.state.log_history if "grad_norm" in line])

    return call


def rates(case: Case, options: Options, result: Mapping[str, Any]) -> dict[str, Any]:
    """Source and target tokens per second of each setting."""
    tokens = case["batch"] * (case["source"] + case["target"])
    ran = {name: of["median_seconds"] for name, of in result["settings"].items() if "refused" not in of}
    return {"tokens_per_second": {name: round(tokens / seconds, 1) for name, seconds in ran.items()}}


BENCHMARK = Benchmark(
    module="benchmarks.adapt",
    cases=CASES,
    quick=QUICK,
    write=write,
    settings=settings,
    name=lambda case: f"adapt-{case['source']}-{case['target']}-{case['batch']}-{case['dtype']}",
    what=lambda case: (
        f"T5Gemma B-B shapes, vocabulary {case['vocabulary']}, source {case['source']}, target {case['target']}, "
        f"batch {case['batch']}, {case['dtype']}: a step of training with AdamW"
    ),
    difference=lambda *_: largest_relative,
    more=rates,
    steps=steps,
)

if __name__ == "__main__":
    BENCHMARK.run(__doc__)
