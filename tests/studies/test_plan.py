"""`study plan`: what a study would take and could find, and `--only`, with which its noise is measured."""

from pathlib import Path

import numpy as np
import pytest

from pairform.experiments.execution.forecast import forecast
from pairform.experiments.results.noise import noise_of
from pairform.experiments.results.records import trials_of
from pairform.experiments.statistics.rules import ComparisonSpec
from pairform.experiments.study.planning import read_study
from pairform.registry import InputError
from tests.command_line.runner import CommandLine, document, refused
from tests.studies.small_study import result, run, write_results, write_study

THREE = {"seeds": [0, 1, 2]}


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(monkeypatch, capsys)


def test_a_plan_counts_trials_costs_and_time_and_writes_nothing(tmp_path: Path, command: CommandLine) -> None:
    file = write_study(tmp_path, {"variants": {"slow": {"training": {"steps": 300}}}})
    found = document(command("study", "plan", file, "--json"))
    rows = {row["name"]: row for row in found["variants"]}
    assert {name: (row["trials"], row["steps"]) for name, row in rows.items()} == {
        "separate": (2, 3),
        "merged": (2, 3),
        "slow": (2, 300),
    }
    for row in rows.values():
        assert row["step_seconds"] > 0
        assert row["seconds"] == pytest.approx(row["trials"] * row["steps"] * row["step_seconds"])
    assert (found["trials"], found["comparisons"], found["noise"]) == (6, 2, None)
    assert found["seconds"] == pytest.approx(sum(row["seconds"] for row in rows.values()))
    assert found["bytes"] > 0
    assert [path.name for path in tmp_path.iterdir()] == ["study.json"]
    said = command("study", "plan", file, "--no-time").out
    assert "Run at least 3 seeds of the first variant" in said
    assert said.splitlines()[-1] == f"pairform study run {file} --only separate"
    assert "ms a step" not in said


def test_seeds_of_the_first_variant_give_the_noise_floor(tmp_path: Path, command: CommandLine) -> None:
    trials = run(tmp_path, THREE, only=["separate"])
    assert {trial.variant: trial.status for trial in trials} == {"separate": "done", "merged": "planned"}
    file = tmp_path / "study.json"
    found = document(command("study", "plan", file, "--no-time", "--difference", 0.5, "--json"))["noise"]
    losses = [result(tmp_path, f"separate-seed{seed}")["loss"] for seed in range(3)]
    assert found["deviation"] == pytest.approx(2**0.5 * np.std(losses, ddof=1))
    assert (found["freedom"], found["source"]) == (2, "3 seeds of the first variant")
    assert found["detectable"] > found["deviation"]
    assert found["seeds_needed"] >= 3
    said = " ".join(command("study", "plan", file, "--no-time", "--difference", 0.5).out.split())
    assert f"a difference of {found['detectable']:.2g} is found with a probability of 80% among 1 comparison." in said
    assert f"A difference of 0.5 needs {found['seeds_needed']} seeds." in said


def test_once_variants_have_run_their_differences_give_it(tmp_path: Path) -> None:
    folder = write_results(
        tmp_path, {"a": [1.0, 2.0, 3.0], "b": [1.1, 2.0, 2.9], "c": [2.0, 3.0, 4.3], "d": [0.0, "planned", "planned"]}
    )
    noise = noise_of(folder)
    assert noise is not None
    variances = [np.var([0.1, 0.0, -0.1], ddof=1), np.var([1.0, 1.0, 1.3], ddof=1)]
    assert noise.deviation == pytest.approx(np.mean(variances) ** 0.5)
    assert (noise.freedom, noise.source) == (4, "the differences of 2 variants from the first")
    low, high = noise.interval
    assert low < noise.deviation < high


def test_noise_needs_three_seeds(tmp_path: Path) -> None:
    assert noise_of(write_results(tmp_path, {"a": [1.0, 2.0], "b": [1.1, 2.0]})) is None


def test_a_planned_number_of_seeds_finds_the_difference_it_was_planned_for(tmp_path: Path) -> None:
    noise = noise_of(write_results(tmp_path, {"a": [0.0] * 3, "b": [1.0, 0.0, -1.0]}))
    assert noise is not None
    rules = ComparisonSpec()
    for difference in (0.5, 1.0, 3.0):
        needed = noise.seeds_needed(difference, 12, rules)
        assert needed is not None
        seen = noise.detectable(needed, 12, rules)
        assert seen is not None
        assert seen <= difference
        before = noise.detectable(needed - 1, 12, rules)
        assert before is None or before > difference
    assert noise.detectable(2, 1, rules) is None
    assert noise.seeds_needed(1e-6, 1, rules) is None


def test_only_runs_the_variants_that_it_names_at_every_point(tmp_path: Path) -> None:
    grid = {"grid": {"training.steps": [1, 2]}, "seeds": [0]}
    run(tmp_path, grid, only=["merged"])
    states = {trial.variant: trial.status for trial in trials_of(tmp_path / "study")}
    assert states == {
        "separate steps=1": "planned",
        "separate steps=2": "planned",
        "merged steps=1": "done",
        "merged steps=2": "done",
    }
    assert {trial.status for trial in run(tmp_path, grid)} == {"done"}


def test_an_unknown_variant_is_refused_before_anything_is_written(tmp_path: Path, command: CommandLine) -> None:
    file = write_study(tmp_path)
    refused(command("study", "run", file, "--only", "merge"), 1, "found 'merge'", "Did you mean 'merged'?")
    assert [path.name for path in tmp_path.iterdir()] == ["study.json"]


def test_a_search_has_no_plan(tmp_path: Path) -> None:
    grid = {"grid": {"training.steps": [1, 2]}, "search": {"points": 1}}
    with pytest.raises(InputError, match="search"):
        forecast(read_study(write_study(tmp_path, grid)), tmp_path)
