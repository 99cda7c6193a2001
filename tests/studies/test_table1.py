"""The study of the papers' variants in examples/table1, run in its quick form: a step, a seed."""

import json
from pathlib import Path

import pytest

from pairform.experiments.results.records import result_of, trials_of
from tests.command_line.runner import CommandLine

FILE = Path(__file__).parents[2] / "examples" / "table1" / "study.json"
QUICK = ["training.steps=1", "training.batch=2", "data.validation=2", "seeds=[0]"]


def test_its_quick_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "table1"
    settings = [word for setting in QUICK for word in ("--set", setting)]
    ran = CommandLine(monkeypatch, capsys)("study", "run", FILE, "--out", out, *settings)
    assert ran.code == 0, ran
    trials = trials_of(out)
    assert {trial.variant for trial in trials} == set(json.loads(FILE.read_text())["variants"])
    parameters = {trial.variant: result_of(out, trial.name)["parameters"] for trial in trials}
    saved = {variant: parameters["baseline"] - count for variant, count in parameters.items()}
    cross = 4 * 128 * 128 + 2 * 128  # four projections and the norms around them
    assert saved == {
        "baseline": 0,
        "tied embeddings": 259 * 128,
        "merged attention": 4 * cross,
        "cross-attention in every other layer": 2 * cross,
        "cross-attention in the last two layers": 2 * cross,
        "causal encoder": 0,
    }
