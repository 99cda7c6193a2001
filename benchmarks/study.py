"""The wall time of a study of small trials, compared with the same trials' bare training loops.

The study runs as the command `pairform study run` with two jobs. The bare loops run in two processes, each of which trains half
of the same models one after the other: model, batches, AdamW, clipping, and one validation. Both take turns. Their final losses
must agree.

    python -m benchmarks.study [--runs N] [--quick]
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

import pairform
from benchmarks.compare import rounded
from benchmarks.measure import save
from benchmarks.options import Options, parse
from pairform.assemblies.modeling.model import Model
from pairform.experiments.results.records import Trial, result_of, trials_of
from pairform.experiments.study.contents import gather
from pairform.experiments.study.planning import plan_trials, read_study
from pairform.training.data.batches import collate

JOBS = 2
LAYER = {
    "self_attention": {"heads": 4, "kv_heads": 2, "head_dim": 8},
    "feed_forward": {"hidden": 96},
}
CROSS = {"cross_attention": {"heads": 4, "kv_heads": 2, "head_dim": 8}}
STACK = {"width": 32, "depth": 2}
STUDY: dict[str, Any] = {
    "name": "small trials",
    "base": {
        "extends": "t5gemma-s-s",
        "vocabulary": 32,
        "encoder": STACK | {"layer": {"branches": LAYER}},
        "decoder": STACK | {"layer": {"branches": LAYER | CROSS}},
    },
    "variants": {
        "separate": {},
        "multi-query": {"decoder": {"layer": {"branches": {"self_attention": {"kv_heads": 1}}}}},
        "post-norm": {"encoder": {"layer": {"placement": "post"}}, "decoder": {"layer": {"placement": "post"}}},
        "causal encoder": {"encoder": {"layer": {"branches": {"self_attention": {"mask": {"causal": True}}}}}},
    },
    "grid": {"training.optimizer.learning_rate": [0.0003, 0.001, 0.002, 0.003, 0.006]},
    "training": {"steps": 100, "batch": 16, "clip": 1.0},
    "data": {"name": "copy", "symbols": 16, "length": [8, 16], "validation": 128},
    "seeds": list(range(10)),
}
QUICK: dict[str, Any] = STUDY | {"seeds": [0], "variants": {"separate": {}, "multi-query": STUDY["variants"]["multi-query"]}}
QUICK |= {"training": STUDY["training"] | {"steps": 3}}
TOLERANCE = 1e-3
"""Largest relative difference of a validation loss. The schedule and the norm of the gradients round differently, and at the
higher learning rates 100 steps enlarge that: 1.5e-4 was seen."""


def bare(file: Path, half: int) -> None:
    """Train every second trial of the study in `file`, from the trial `half` on, and print the final losses by name."""
    torch.set_num_threads(1)
    study = read_study(file)
    contents = gather(study, file.parent)
    trials = plan_trials(study, file.parent, contents)[half::JOBS]
    begin = time.perf_counter()
    losses = {trial.name: train(trial, contents) for trial in trials}
    print(json.dumps({"seconds": time.perf_counter() - begin, "losses": losses}))


def train(trial: Trial, contents: Any) -> float:
    spec, settings = pairform.load_spec(dict(trial.spec)), trial.training
    examples = contents.open(spec)
    model = pairform.build(spec, seed=trial.seed).train()
    peak, betas = settings.optimizer.learning_rate, settings.optimizer.betas
    optimizer = torch.optim.AdamW(model.parameters(), peak, betas=betas, weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps, settings.schedule.final * peak)
    for step in range(settings.steps):
        loss = model(**collate(examples.train(trial.seed, step, settings.batch), spec)).loss
        optimizer.zero_grad()
        loss.backward()
        assert settings.clip is not None
        nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        optimizer.step()
        schedule.step()
    return validate(model.eval(), examples.validation(), settings.batch)


@torch.no_grad()
def validate(model: Model, held_out: list[Any], batch: int) -> float:
    """The mean loss over target tokens."""
    total, tokens = 0.0, 0
    for begin in range(0, len(held_out), batch):
        inputs = collate(held_out[begin : begin + batch], model.spec)
        count = int((inputs["labels"] >= 0).sum())
        total += model(**inputs).loss.item() * count
        tokens += count
    return total / tokens


def run_bare(file: Path) -> tuple[float, dict[str, float]]:
    """Seconds of the slower half, without imports and planning, and the losses by trial."""
    command = [sys.executable, "-m", "benchmarks.study", "--folder", str(file.parent), "--alone"]
    halves = [subprocess.Popen([*command, str(half)], stdout=subprocess.PIPE, text=True) for half in range(JOBS)]
    told = [json.loads(process.communicate()[0]) for process in halves]
    return max(each["seconds"] for each in told), {name: loss for each in told for name, loss in each["losses"].items()}


def run_study(file: Path, out: Path) -> tuple[float, dict[str, float]]:
    """Seconds of the whole command, and the losses by trial."""
    command = [sys.executable, "-m", "pairform", "study", "run", str(file), "--jobs", str(JOBS), "--out", str(out)]
    begin = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - begin
    return seconds, {trial.name: result_of(out, trial.name)["loss"] for trial in trials_of(out)}


def measure(study: dict[str, Any], runs: int, folder: Path) -> dict[str, Any]:
    """Seconds of both, by turns, and the median ratio."""
    file = folder / "study.json"
    file.write_text(json.dumps(study), "utf-8")
    turns: dict[str, list[float]] = {"study": [], "bare loops": []}
    for turn in range(runs):
        ours, found = run_study(file, folder / f"out-{turn}")
        theirs, expected = run_bare(file)
        for name, loss in expected.items():
            if abs(found[name] - loss) > TOLERANCE * abs(loss):
                raise SystemExit(f"the losses of {name} differ: {found[name]} and {loss}")
        turns["study"].append(ours)
        turns["bare loops"].append(theirs)
        print(f"  study {ours:.1f} s, bare loops {theirs:.1f} s", flush=True)
    ratios = [ours / theirs for ours, theirs in zip(*turns.values(), strict=True)]
    return {
        "trials": len(expected),
        "parameters": int(result_of(folder / "out-0", next(iter(expected)))["parameters"]),
        "steps": study["training"]["steps"],
        "settings": {
            name: {"seconds": [rounded(value) for value in of], "median_seconds": rounded(statistics.median(of))}
            for name, of in turns.items()
        },
        "ratio": round(statistics.median(ratios), 3),
    }


def main(arguments: list[str] | None = None) -> None:
    options: Options = parse(__doc__, arguments)
    if options.alone is not None:
        assert options.folder is not None
        bare(options.folder / "study.json", int(options.alone))
        return
    with tempfile.TemporaryDirectory() as place:
        found = measure(QUICK if options.quick else STUDY, options.runs or 1, Path(place))
    what = "pairform study run --jobs 2, seconds of the whole command, compared with the trials' bare loops in two processes"
    save("study", {"machine": {"threads": 1}, "what": what, **found}, options.results)


if __name__ == "__main__":
    main()
