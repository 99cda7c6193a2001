"""The cost of `adapt`'s training loop, compared with a loop written by hand on the same model, batches and optimiser.

Both take turns in one process, from the same weights. Ours reads its batches from shards while it trains, writes a line of
metrics for every step, clips gradients and looks for loss spikes, with the deterministic algorithms of a run on a CPU. The loop
by hand has its batches in memory and clips gradients.

    python -m benchmarks.loop [--runs N] [--threads 2] [--device cpu] [--quick]
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import pairform
from benchmarks.compare import rounded, synchronise
from benchmarks.measure import save
from benchmarks.options import Options, parse
from benchmarks.runs import Training, by_hand, prepared, write_shards
from pairform.training.metrics import open_log

Case = dict[str, Any]
CASES: dict[str, Case] = {
    "small": {"width": 128, "depth": 2, "hidden": 512, "source": 96, "target": 64, "rows": 32, "micro": 16, "steps": 8},
    "medium": {"width": 512, "depth": 4, "hidden": 2048, "source": 128, "target": 128, "rows": 8, "micro": 4, "steps": 2},
}
QUICK: dict[str, Case] = {
    "small": {"width": 32, "depth": 1, "hidden": 32, "source": 12, "target": 12, "rows": 4, "micro": 2, "steps": 2}
}
TOLERANCE = 1e-4
"""Largest relative difference of the losses after training, which round differently."""
CLIP = 1.0


def spec(case: Case) -> pairform.ModelSpec:
    heads = {"heads": case["width"] // 32, "kv_heads": case["width"] // 32, "head_dim": 32}
    stack = {"width": case["width"], "depth": case["depth"]}
    branches = {"self_attention": heads, "feed_forward": {"hidden": case["hidden"]}}
    patch = {"vocabulary": 384, "encoder": stack | {"layer": {"branches": branches}}}
    patch["decoder"] = stack | {"layer": {"branches": branches | {"cross_attention": heads}}}
    return pairform.patch(pairform.load_spec("t5gemma-b-b"), patch)


def measure(case: Case, options: Options, folder: Path) -> dict[str, Any]:
    """Seconds for each step of both loops, by turns, and the overhead of ours: the median over the turns of the ratios."""
    (folder / "model.json").write_text(json.dumps(spec(case).document()), "utf-8")
    write_shards(folder, 200, 4 * (case["source"] + case["target"]))
    objective = {"name": "prefix_lm", "source": case["source"], "target": case["target"]}
    batch = {"tokens": case["rows"] * (case["source"] + case["target"]), "micro": case["micro"]}
    run = prepared(folder / "model.json", folder, objective, batch, clip=CLIP)
    runs, steps = options.runs or (1 if options.quick else 9), case["steps"]
    batches = [run.batches.batch(step) for step in range(steps * (runs + 1))]
    losses: list[float] = []
    turns: dict[str, list[float]] = {"adapt": [], "by hand": []}
    with open_log(folder, tensorboard=False) as log:
        ours, other = (Training.of(run, folder, options.device, each) for each in (log, lambda line: None))
        model, optimizer = other.loop.model, other.loop.optimizers.each[0]

        def hand() -> None:
            begin = len(losses)
            for each in batches[begin : begin + steps]:
                losses.append(by_hand(model, optimizer, each, CLIP, options.device)[0].item())

        loops: dict[str, Callable[[], None]] = {"adapt": lambda: ours.run(steps), "by hand": hand}
        for turn in range(runs + 1):
            for name in [*loops][:: 1 if turn % 2 else -1]:
                synchronise()
                begin = time.perf_counter()
                loops[name]()
                synchronise()
                if turn:  # the first is a warm-up
                    turns[name].append((time.perf_counter() - begin) / steps)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    for line, loss in zip(lines, losses, strict=True):
        if abs(line["loss"] - loss) > TOLERANCE * abs(loss):
            raise SystemExit(f"the losses of step {line['step']} differ: {line['loss']} and {loss}")
    ratios = [first / second for first, second in zip(turns["adapt"], turns["by hand"], strict=True)]
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "settings": {
            name: {"seconds": [rounded(value) for value in of], "median_seconds": rounded(statistics.median(of))}
            for name, of in turns.items()
        },
        "overhead": round(statistics.median(ratios) - 1, 4),
    }


def main(arguments: list[str] | None = None) -> None:
    options = parse(__doc__, arguments)
    for name, case in (QUICK if options.quick else CASES).items():
        with tempfile.TemporaryDirectory() as place:
            found = measure(case, options, Path(place))
        what = f"adapt's loop compared with a loop by hand, seconds for each step; {found['parameters']:,} parameters"
        result = {"machine": {"threads": torch.get_num_threads()}, "what": what, "case": case, **found}
        save(f"loop-{name}", result, options.results, options.device)


if __name__ == "__main__":
    main()
