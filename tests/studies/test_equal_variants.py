"""Variants that are the same model, trained in the same way: one set of trials, which says so."""

import json
from pathlib import Path
from typing import Any

import pytest

from pairform.experiments.execution.run import run_study
from pairform.experiments.results.summary import summarise
from pairform.experiments.study.planning import read_study
from tests.command_line.runner import CommandLine
from tests.studies.small_study import MERGED, run, write_results, write_study

ATTENTION = {"scale": 0.5, "name": "merged_attention"}
TWICE = {"decoder": {"layer": {"branches": {"cross_attention": None, "self_attention": ATTENTION}}}}
"""MERGED in other words: a field has the value that it has in the base."""


def write_with(folder: Path, name: str, variant: dict[str, Any], seeds: list[int]) -> Path:
    """The small study with a third variant, of which no null is lost."""
    file = write_study(folder, {"seeds": seeds})
    document = json.loads(file.read_text())
    document["variants"][name] = variant
    file.write_text(json.dumps(document))
    return file


def test_equal_variants_share_their_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_with(tmp_path, "joint", TWICE, [0])
    command = CommandLine(monkeypatch, capsys)
    assert "joint: the same model" in command("study", "plan", file, "--no-time").out
    planned = json.loads(command("study", "plan", file, "--no-time", "--json").out)
    assert (planned["trials"], planned["comparisons"]) == (2, 1)
    ran = command("study", "run", file, "--out", tmp_path / "study")
    assert ran.code == 0
    assert "joint: the same model, training and weights as merged." in ran.out
    trials: Any = sorted(path.name for path in (tmp_path / "study" / "trials").iterdir())
    assert trials == ["merged-seed0", "separate-seed0"]
    rows = json.loads(command("study", "status", tmp_path / "study", "--json").out)["variants"]
    assert {row["variant"]: row.get("same_as") for row in rows} == {"separate": None, "merged": None, "joint": "merged"}
    assert rows[1]["results"] == rows[2]["results"]
    command("study", "report", tmp_path / "study")
    assert "The same model, training and weights as joint" in (tmp_path / "study" / "report.html").read_text("utf-8")


def test_losses_that_are_all_the_same_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_results(tmp_path, {"first": [1.0, 2.0], "second": [1.5, 2.0], "third": [1.5, 2.0], "none": [None, None]})
    rows = {row["variant"]: row.get("same_losses") for row in summarise(folder)}
    assert rows == {"first": None, "second": None, "third": "second", "none": None}
    said = "the same loss as second with every finished seed."
    command = CommandLine(monkeypatch, capsys)
    assert f"third: {said}" in command("study", "status", folder).out
    command("study", "report", folder)
    assert said in (folder / "report.html").read_text("utf-8")


def test_a_second_name_may_be_added_and_chosen(tmp_path: Path) -> None:
    run(tmp_path, {"seeds": [0]})
    file = write_with(tmp_path, "joint", MERGED, [0, 1])
    trials = run_study(read_study(file), tmp_path / "study", source=tmp_path, only=["joint"])
    done = {trial.name: trial.also for trial in trials if trial.status == "done"}
    assert done == {"separate-seed0": (), "merged-seed0": ("joint",), "merged-seed1": ("joint",)}


def test_another_training_is_another_variant(tmp_path: Path) -> None:
    slower = {"training": {"optimizer": {"learning_rate": 1e-5}}}
    assert len(run(tmp_path, {"variants": {"merged": None, "slower": slower}, "seeds": [0]})) == 2
