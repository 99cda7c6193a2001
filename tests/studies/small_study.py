"""A study that takes a second: two variants of a tiny pair that copies."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pairform.experiments.execution.run import prepare, run_study
from pairform.experiments.results.records import Trial, TrialFolder
from pairform.experiments.study.contents import gather
from pairform.experiments.study.planning import plan_trials, read_study
from pairform.registry import merge_patch
from pairform.registry.run_folders import write_json

HEADS = {"heads": 2, "kv_heads": 2, "head_dim": 4, "scale": 0.5}
MERGED = {"decoder": {"layer": {"branches": {"self_attention": {"name": "merged_attention"}, "cross_attention": None}}}}
STUDY: dict[str, Any] = {
    "name": "small",
    "base": {
        "extends": "t5gemma-s-s",
        "vocabulary": 16,
        "initializer_range": 0.1,
        "encoder": {
            "width": 8,
            "depth": 1,
            "layer": {"branches": {"self_attention": HEADS, "feed_forward": {"hidden": 8}}},
        },
        "decoder": {
            "width": 8,
            "depth": 1,
            "layer": {"branches": {"self_attention": HEADS, "cross_attention": HEADS, "feed_forward": {"hidden": 8}}},
        },
    },
    "variants": {"separate": {}, "merged": MERGED},
    "training": {"steps": 3, "batch": 4, "log_every": 1, "evaluate_every": 2},
    "data": {"name": "copy", "symbols": 8, "length": [2, 4], "validation": 8},
    "seeds": [0, 1],
}


def write_study(folder: Path, patch: dict[str, Any] | None = None) -> Path:
    """A file with the study, changed by a merge patch."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "study.json"
    file.write_text(json.dumps(merge_patch(STUDY, patch or {})))
    return file


def run(folder: Path, patch: dict[str, Any] | None = None, **options: Any) -> list[Trial]:
    """Run the study in `folder`/study."""
    file = write_study(folder, patch)
    return run_study(read_study(file), folder / "study", source=folder, **options)


def lines(folder: Path, trial: str) -> list[dict[str, Any]]:
    """A trial's metrics without what differs from run to run."""
    text = (folder / "study" / "trials" / trial / "metrics.jsonl").read_text()
    return [{key: value for key, value in json.loads(line).items() if key != "seconds"} for line in text.splitlines()]


def result(folder: Path, trial: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "study" / "trials" / trial / "result.json").read_text())
    return found


def write_results(
    folder: Path, losses: Mapping[str, Sequence[float | str | None]], patch: dict[str, Any] | None = None
) -> Path:
    """The folder of a study with these variants, of which nothing was run.

    losses: of each seed the loss of a trial that is done, None for one that failed, or the name of another state.
    """
    seeds = list(range(max(map(len, losses.values()))))
    file = write_study(folder, {"variants": None, "training": {"steps": 0}, "seeds": seeds} | (patch or {}))
    file.write_text(json.dumps(json.loads(file.read_text()) | {"variants": {name: {} for name in losses}}))
    study, out = read_study(file), folder / "study"
    planned = plan_trials(study, folder, gather(study, folder))
    out.mkdir()
    prepare(out, study, planned, retry=False)
    for trial in planned:
        loss = losses[trial.variant][trial.seed]
        if isinstance(loss, float):
            measured = {"loss": loss, "accuracy": 0.5, "exact_match": 0.25, "parameters": 1000, "flops": 2000}
            write_json(out / "trials" / trial.name / "result.json", measured)
        error = "the loss is nan at step 10" if loss is None else None
        status: Any = "done" if isinstance(loss, float) else loss or "failed"
        TrialFolder(out, trial.name).write(trial.at(status, error))
    return out


def wait_for(happened: Callable[[], bool], seconds: float = 300) -> None:
    """Wait for what another process does."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.05)
