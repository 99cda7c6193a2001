"""How long trials take to the first variant's loss, from metrics that are written here."""

import csv
import html
import json
from pathlib import Path
from typing import Any

import pytest

from pairform.experiments.report.page import render
from pairform.experiments.report.reading import read_report
from pairform.experiments.results.export import export
from pairform.experiments.results.records import TrialFolder
from pairform.experiments.results.summary import summarise
from pairform.experiments.results.time_to_loss import Reached, Times, first_reached
from tests.command_line.runner import CommandLine
from tests.studies.small_study import write_results

Curve = list[tuple[int, float]]
"""Validation losses by step."""


def line(step: int, loss: float, split: str = "valid") -> dict[str, Any]:
    """Ten tokens and two seconds a step."""
    return {"step": step, "split": split, "loss": loss, "tokens": 10 * step, "seconds": 2.0 * step}


CURVES: list[tuple[Curve, float | None]] = [
    ([(10, 4.0), (20, 3.0), (30, 2.0), (40, 1.0)], 25.0),
    ([(10, 4.0), (20, 2.5), (30, 2.0)], 20.0),
    ([(10, 4.0), (20, 2.0), (30, 5.0), (40, 2.0)], 17.5),
    ([(10, 1.0), (20, 0.5)], 10.0),
    ([(10, 4.0), (20, 2.6)], None),
    ([], None),
]
"""Losses, and the steps to a loss of 2.5: interpolated, at a validation, the first time, in the first one, never."""


@pytest.mark.parametrize(("curve", "steps"), CURVES)
def test_a_loss_is_reached_between_two_validations(curve: Curve, steps: float | None) -> None:
    lines = [each for step, loss in curve for each in (line(step, 0.0, "train"), line(step, loss))]
    found = first_reached(lines, 2.5)
    known = None if found is None else (found.steps, found.tokens, found.seconds)
    assert known == (None if steps is None else pytest.approx((steps, 10 * steps, 2 * steps)))
    assert found is None or found.early == (steps == 10)


def test_lines_that_cannot_be_read_are_no_validations() -> None:
    lines = [line(10, 4.0), {"step": 20, "split": "valid", "loss": None}, line(30, 2.0) | {"tokens": "many"}, line(40, 2.0)]
    assert first_reached(lines, 3.0) == Reached(25.0, 250.0, 50.0)


MEDIANS: list[tuple[list[float | None], float | None]] = [
    ([10, 20, 30], 20),
    ([10, 30, None], 30),
    ([10, None, None], None),
    ([10, None], None),
    ([10, 20, 40, None], 30),
]


@pytest.mark.parametrize(("steps", "median"), MEDIANS)
def test_the_median_counts_those_that_take_longer(steps: list[float | None], median: float | None) -> None:
    seeds = {seed: None if each is None else {"steps": each} for seed, each in enumerate(steps)}
    times = Times("time_to_loss", seeds, (100,) * steps.count(None))
    assert times.median == median
    assert ("median" in times.finding) == (median is not None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three variants: the first, one that is twice as fast, and one of which a seed never gets there."""
    losses: dict[str, list[float | str | None]] = {"first": [2.0, 1.0, 3.0], "fast": [0.5, 0.5, 1.0], "slow": [2.5, 1.0, 2.5]}
    patch = {"measures": [{"name": "time_to_loss"}], "training": {"steps": 40, "evaluate_every": 10, "batch": 4}}
    study = write_results(tmp_path, losses, patch)
    for variant, finals in losses.items():
        for seed, final in enumerate(finals):
            assert isinstance(final, float)
            half = {"fast": losses["first"][seed]}.get(variant, final + 2)
            curve = [(10, 9.0), (20, half), (30, final + 0.5 if variant != "fast" else 0.75), (40, final)]
            folder = TrialFolder(study, f"{variant}-seed{seed}").path
            rows = [line(step, float(str(loss))) for step, loss in curve]
            (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return study


def test_times_are_paired_by_seed_and_never_averaged_over_those_that_are_known(folder: Path) -> None:
    rows = {row["variant"]: row for row in summarise(folder)}
    assert [rows[name]["results"]["time_to_loss.steps"]["mean"] for name in ("first", "fast")] == [40, 20]
    found = rows["fast"]["difference"]["time_to_loss.steps"]
    assert (found["mean"], found["better"], found["verdict"]) == (-20, "lower", "lower")
    assert found["finding"] == "time to loss steps lower by 20.0000 with every seed."
    forward = json.loads((folder / "trials" / "fast-seed0" / "trial.json").read_text())["costs"]["flops"]
    assert rows["fast"]["results"]["time_to_loss.flops"]["mean"] == 20 * 3 * 4 * forward
    assert rows["fast"]["results"]["time_to_loss.seconds"]["mean"] == 40
    fast = rows["fast"]["time_to_loss"]["ratios"]
    assert {name: fast[name]["mean"] for name in ("steps", "tokens", "flops", "seconds")} == pytest.approx(
        dict.fromkeys(fast, 0.5)
    )
    assert "0.50 (95% interval 0.50 to 0.50) of the first variant's tokens" in rows["fast"]["time_to_loss"]["finding"]
    assert rows["first"]["time_to_loss"]["ratios"] == rows["slow"]["time_to_loss"]["ratios"] == {}
    slow = rows["slow"]
    assert "time_to_loss.steps" not in slow["results"] | slow["difference"]
    assert {name: slow["time_to_loss"][name] for name in ("reached", "seeds")} == {"reached": 2, "seeds": 3}


def test_a_difference_from_upper_bounds_says_so(folder: Path) -> None:
    file = TrialFolder(folder, "fast-seed1").path / "metrics.jsonl"
    file.write_text("\n".join(json.dumps(line(step, 0.5)) for step in (10, 20, 30, 40)))
    found = next(row for row in summarise(folder) if row["variant"] == "fast")["difference"]
    said = " The times of 1 of 3 seeds are upper bounds: evaluate more often."
    assert found["time_to_loss.steps"]["finding"].endswith(said)
    assert said not in found["loss"]["finding"]


def test_who_does_not_reach_it_is_told_everywhere(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = "reaches the first variant's final loss with 2 of 3 seeds; median 40 steps; 1 had not reached it after 40 steps."
    assert f"slow: {said}" in CommandLine(monkeypatch, capsys)("study", "status", folder).out.splitlines()
    assert said[1:] in html.unescape(render(read_report(folder))).replace("\n", " ")
    with export(folder, folder.parent / "out.csv").open(newline="", encoding="utf-8") as file:
        by_trial = {row["trial"]: row for row in csv.DictReader(file)}
    known = {name: (row["time_to_loss.reached"], row["time_to_loss.steps"]) for name, row in by_trial.items()}
    assert known["fast-seed1"] == ("True", "20.0")
    assert sorted(known[f"slow-seed{seed}"] for seed in range(3)) == [("False", ""), ("True", "30.0"), ("True", "40.0")]
