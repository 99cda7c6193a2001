"""Studies that tune their variants: a sweep chooses, other seeds judge."""

import csv
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from pairform.experiments.execution import run as running
from pairform.experiments.execution.forecast import forecast
from pairform.experiments.report.page import render
from pairform.experiments.report.reading import read_report
from pairform.experiments.results.export import export
from pairform.experiments.results.records import TRIAL, TRIALS, Trial, TrialFolder, trials_of
from pairform.experiments.results.summary import summarise
from pairform.experiments.results.sweeps import Sweep, read_sweeps
from pairform.experiments.study.planning import read_study
from pairform.registry import PairformError
from pairform.registry.run_folders import write_json
from tests.command_line.runner import CommandLine, document
from tests.studies.small_study import lines, result, run, write_study

RATE = "training.optimizer.learning_rate"
TUNED: dict[str, Any] = {"tune": {RATE: [0.001, 0.01, 0.1]}, "tune_seeds": [7, 8], "seeds": [0, 1, 2]}
LOSSES = {
    "separate": {0.001: 2.5, 0.01: 2.0, 0.1: 3.0, 1.0: 4.0},
    "merged": {0.001: 3.5, 0.01: 2.4, 0.1: 2.1, 1.0: 1.5},
    "norm=post": {0.01: 2.0, 0.1: 3.0},
    "norm=pre": {0.01: 2.4, 0.1: 2.1},
}
"""Each variant has another best rate; that of `merged` is at the edge of the sweep."""
Failing = Collection[tuple[str, float]]


class Executor:
    """Trials end at once, with known losses. It counts them, and may end the process."""

    def __init__(self, study: Path, most: int, failing: Failing) -> None:
        self.study, self.most, self.failing = study, most, failing
        self.running: list[str] = []
        self.started = 0

    def start(self, name: str) -> None:
        if self.started == self.most:
            raise KeyboardInterrupt
        self.started += 1
        self.running.append(name)

    def wait(self, seconds: float) -> list[tuple[str, str]]:
        folder = TrialFolder(self.study, name := self.running.pop())  # not in the order in which they started
        trial = folder.read()
        variant, rate = trial.variant.partition(" ")[0], trial.training.optimizer.learning_rate
        if (variant, rate) in self.failing:
            folder.write(trial.at("failed", "the loss is nan at step 1"))
        else:
            noise = 0.001 * ((7 * trial.seed + 3 * len(name)) % 11)
            write_json(folder.path / "result.json", {"loss": LOSSES[variant][rate] + noise})
            folder.write(trial.at("done"))
        return [(name, "")]

    def stop(self) -> None:
        self.running.clear()


@pytest.fixture
def instant(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a study whose trials end at once; the number of trials that it started, negative if it was ended."""

    def run_instantly(
        folder: Path, patch: dict[str, Any] | None = None, most: int = 1000, failing: Failing = (), **options: Any
    ) -> int:
        executor = Executor(folder / "study", most, failing)
        monkeypatch.setattr(running, "make_executor", lambda *_: executor)
        try:
            run(folder, TUNED | (patch or {}), **options)
        except KeyboardInterrupt:
            return -executor.started
        return executor.started

    return run_instantly


def sweeps(folder: Path) -> dict[str, Sweep]:
    return read_sweeps(folder / "study")


def chosen(folder: Path) -> dict[str, Any]:
    return {name: sweep.chosen and sweep.chosen.hyperparameters[RATE] for name, sweep in sweeps(folder).items()}


def retrained(folder: Path) -> Counter[tuple[str, float]]:
    return Counter(
        (trial.variant, trial.hyperparameters[RATE]) for trial in trials_of(folder / "study") if trial.stage == "retrain"
    )


def test_the_best_values_are_retrained_and_those_of_the_first_variant(tmp_path: Path, instant: Any) -> None:
    assert instant(tmp_path) == 2 * 3 * 2 + 3 * 3
    assert chosen(tmp_path) == {"separate": 0.01, "merged": 0.1}
    assert retrained(tmp_path) == {("separate", 0.01): 3, ("merged", 0.1): 3, ("merged", 0.01): 3}
    assert sweeps(tmp_path)["merged"].edges == {RATE: "largest"}
    assert sweeps(tmp_path)["separate"].edges == {}
    tuned, same = (
        {row["variant"]: row for row in summarise(tmp_path / "study", recipe)} for recipe in ("tuned", "same_recipe")
    )
    assert tuned["merged"]["difference"]["loss"]["mean"] == pytest.approx(0.1, abs=0.01)
    assert same["merged"]["difference"]["loss"]["mean"] == pytest.approx(0.4, abs=0.01)
    assert tuned["separate"] == same["separate"]
    for row in (*tuned.values(), *same.values()):
        assert row["results"]["loss"]["seeds"] == 3, "the sweep's seeds do not count"
    assert {trial.seed for trial in trials_of(tmp_path / "study") if trial.stage == "sweep"} == {7, 8}
    assert instant(tmp_path) == 0


def test_a_finding_says_if_it_may_be_one_of_settings(tmp_path: Path, instant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two lowest losses of `merged` in the sweep are closer than its noise."""
    instant(tmp_path / "settled")
    monkeypatch.setitem(LOSSES, "merged", LOSSES["merged"] | {0.01: 2.1005})
    instant(tmp_path)
    assert sweeps(tmp_path)["merged"].close == [1]
    (settled, uncertain) = (summarise(each / "study")[1]["difference"]["loss"] for each in (tmp_path / "settled", tmp_path))
    assert settled["verdict"] == uncertain["verdict"] == "higher"
    assert not settled["finding"].endswith("of settings.")
    assert uncertain["finding"].endswith(" Its best setting is uncertain, so the difference may be one of settings.")
    same = summarise(tmp_path / "study", "same_recipe")[1]["difference"]["loss"]["finding"]
    assert not same.endswith("of settings.")


def test_equal_settings_are_retrained_once(tmp_path: Path, instant: Any) -> None:
    assert instant(tmp_path, {"tune": {RATE: [0.001, 0.01]}}) == 2 * 2 * 2 + 2 * 3
    assert summarise(tmp_path / "study") == summarise(tmp_path / "study", "same_recipe")


def records(folder: Path) -> dict[str, Any]:
    found = {path.parent.name: json.loads(path.read_text()) for path in (folder / "study" / TRIALS).glob(f"*/{TRIAL}")}
    results = {path.parent.name: path.read_text() for path in (folder / "study" / TRIALS).glob("*/result.json")}
    return {"trials": found, "results": results}


@pytest.mark.parametrize("seeds", [[0, 1, 2], {"until": 0.004, "most": 6}], ids=["listed", "until"])
def test_a_run_that_is_killed_after_any_trial_has_the_same_records(tmp_path: Path, instant: Any, seeds: Any) -> None:
    patch = {"seeds": seeds, "tune": {RATE: [0.01, 0.1]}}
    count = instant(tmp_path / "whole", patch)
    assert count >= 8 + 9
    whole = records(tmp_path / "whole")
    for most in range(count) if isinstance(seeds, list) else range(1, count, 5):
        folder = tmp_path / str(most)
        assert instant(folder, patch, most) == -most
        instant(folder, patch, jobs=1 + most % 3)
        assert records(folder) == whole


TWO, THREE = {"tune": {RATE: [0.01, 0.1]}}, {"tune": {RATE: [0.01, 0.1, 1.0]}}


@pytest.mark.parametrize(("earlier", "patch"), [(None, TWO), (TWO, THREE)], ids=["new", "extended"])
def test_a_run_that_is_killed_at_a_write_has_the_same_records(
    tmp_path: Path, instant: Any, monkeypatch: pytest.MonkeyPatch, earlier: Any, patch: Any
) -> None:
    """As while the trials of a stage, or of values that were added, are planned."""

    def run_killed(folder: Path, most: int) -> int:
        write, left = TrialFolder.write, most

        def write_some(self: TrialFolder, trial: Trial) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
            write(self, trial)

        if earlier is not None:
            instant(folder, earlier)
        with monkeypatch.context() as patched:
            patched.setattr(TrialFolder, "write", write_some)
            instant(folder, patch)
        return left

    writes = 1000 - run_killed(tmp_path / "whole", 1000)
    for most in range(0, writes, 5):
        assert run_killed(tmp_path / str(most), most) == -1
        instant(tmp_path / str(most), patch)
        assert records(tmp_path / str(most)) == records(tmp_path / "whole")


def test_seeds_are_added_until_both_comparisons_are_precise(tmp_path: Path, instant: Any) -> None:
    instant(tmp_path, {"seeds": {"until": 1e-9, "most": 5}})
    assert retrained(tmp_path) == {("separate", 0.01): 5, ("merged", 0.1): 5, ("merged", 0.01): 5}
    instant(tmp_path / "wide", {"seeds": {"until": 1.0, "most": 5}})
    assert set(retrained(tmp_path / "wide").values()) == {3}


def test_chosen_variants_are_tuned_alone(tmp_path: Path, instant: Any) -> None:
    instant(tmp_path, only=["merged"])
    done = Counter((trial.variant, trial.stage) for trial in trials_of(tmp_path / "study") if trial.status == "done")
    assert done == {("merged", "sweep"): 6, ("merged", "retrain"): 3}
    instant(tmp_path, only=["separate"])
    assert instant(tmp_path) == 3, "of merged, at the rate of the first variant"
    instant(tmp_path / "whole")
    assert records(tmp_path) == records(tmp_path / "whole")


def test_settings_with_failed_trials_lose_and_retried_ones_may_win(tmp_path: Path, instant: Any) -> None:
    instant(tmp_path, failing={("merged", 0.1)})
    assert chosen(tmp_path) == {"separate": 0.01, "merged": 0.01}
    assert sweeps(tmp_path)["merged"].trials == {"done": 4, "failed": 2}
    assert instant(tmp_path) == 0
    assert instant(tmp_path, retry=True) == 2 + 3
    assert chosen(tmp_path)["merged"] == 0.1
    assert all(row["trials"] == {"done": 3} for row in summarise(tmp_path / "study"))


def test_failed_trials_are_retried_in_both_stages(tmp_path: Path, instant: Any) -> None:
    instant(tmp_path)
    names = ["merged-learning_rate=0.1-seed2", "separate-learning_rate=0.1-seed7"]
    for name in names:
        folder = TrialFolder(tmp_path / "study", name)
        folder.write(folder.read().at("failed", "killed"))
    assert instant(tmp_path) == 0
    assert instant(tmp_path, retry=True) == 2


def test_a_variant_whose_sweep_failed_is_not_retrained(
    tmp_path: Path, instant: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    instant(tmp_path, failing={("merged", rate) for rate in LOSSES["merged"]})
    assert retrained(tmp_path) == {("separate", 0.01): 3}
    command = CommandLine(monkeypatch, capsys)
    assert "merged: every trial of its sweep failed" in command("study", "status", tmp_path / "study").out
    assert command("study", "run", tmp_path / "study.json").code == 1


def test_more_values_extend_the_sweep_and_set_earlier_choices_aside(tmp_path: Path, instant: Any) -> None:
    instant(tmp_path)
    more = {"tune": {RATE: [0.001, 0.01, 0.1, 1.0]}}
    assert instant(tmp_path, more) == 2 * 2 + 3
    assert chosen(tmp_path) == {"separate": 0.01, "merged": 1.0}
    with export(tmp_path / "study", tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found = Counter((row["variant"], row[f"tune.{RATE}"], row["stage"], row["tuned"], row["same_recipe"]) for row in rows)
    assert {key: count for key, count in found.items() if key[2] == "retrain"} == {
        ("separate", "0.01", "retrain", "True", "True"): 3,
        ("merged", "0.01", "retrain", "False", "True"): 3,
        ("merged", "0.1", "retrain", "False", "False"): 3,
        ("merged", "1.0", "retrain", "True", "False"): 3,
    }
    assert {key[3:] for key in found if key[2] == "sweep"} == {("False", "False")}


def test_each_point_of_a_grid_has_its_own_choice(tmp_path: Path, instant: Any) -> None:
    instant(tmp_path, {"grid": {"training.batch": [2, 4]}})
    assert chosen(tmp_path) == {
        "separate batch=2": 0.01,
        "separate batch=4": 0.01,
        "merged batch=2": 0.1,
        "merged batch=4": 0.1,
    }
    rows = {row["variant"]: row for row in summarise(tmp_path / "study", "same_recipe")}
    assert rows["merged batch=4"]["difference"]["loss"]["mean"] == pytest.approx(0.4, abs=0.01)


GRID = {"grid": {"training.batch": [2, 4]}, "tune": {RATE: [0.01, 0.1], "training.steps": [1, 3]}}


@pytest.mark.parametrize("patch", [{}, GRID, {"seeds": {"until": 1e-9, "most": 4}}], ids=["plain", "grid", "until"])
def test_a_plan_counts_the_trials_that_are_run_at_most(tmp_path: Path, instant: Any, patch: dict[str, Any]) -> None:
    file = write_study(tmp_path, TUNED | patch)
    study = read_study(file)
    planned = forecast(study, tmp_path, timed=False)
    assert planned.trials == study.trials
    assert instant(tmp_path, patch) == planned.trials
    assert planned.swept == sum(trial.stage == "sweep" for trial in trials_of(tmp_path / "study"))
    assert planned.comparisons == sum("difference" in row for row in summarise(tmp_path / "study"))


SEARCH = {"grid": {"training.batch": [2, 4]}, "search": {"points": 2}}
FACTORS = {"variants": None, "factors": {"rate": {"high": {}, "low": {"training": {"optimizer": {"learning_rate": 0.0003}}}}}}
REFUSED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "no value": ({"tune": {RATE: []}}, [f"tune.{RATE}: found no value"]),
    "one value": ({"tune": {RATE: [0.1]}}, [f"tune.{RATE}: found one value", "two or more"]),
    "a value twice": ({"tune": {RATE: [1, 0.1, 1.0]}}, [f"tune.{RATE}[2]", "each value once"]),
    "an unknown path": (
        {"tune": {"training.optimizer.rate": [1, 2]}},
        ["variant 'separate' with rate=1 and 1 other", "training.optimizer"],
    ),
    "no path": ({"tune": {"": [1, 2]}}, ["tune: found ''"]),
    "a path of the grid": ({"grid": {RATE: [1, 2]}}, [f"tune.{RATE}", "which has values too"]),
    "a path around one of the grid": (
        {"grid": {"training.optimizer.betas": [[0.9, 0.9]]}, "tune": {"training.optimizer": [{}, {"name": "sgd"}]}},
        ["tune.training.optimizer", "a path that holds 'training.optimizer.betas' of the grid"],
    ),
    "a path that a variant sets": (
        {"variants": {"fast": {"training": {"optimizer": {"learning_rate": 0.5}}}}},
        [f"tune.{RATE}", "variants.fast sets"],
    ),
    "a path that a factor sets": (FACTORS, [f"tune.{RATE}", "factors.rate.low sets"]),
    "seeds of both": ({"seeds": [6, 7]}, ["tune_seeds: found 7", "Choose other seeds"]),
    "seeds that may be added": ({"seeds": {"until": 0.1, "most": 9}}, ["tune_seeds: found 7, 8"]),
    "a seed twice": ({"tune_seeds": [7, 7]}, ["tune_seeds", "each seed once"]),
    "seeds of no sweep": ({"tune": None}, ["tune_seeds: found no `tune`"]),
    "search": (SEARCH, ["tune and search together", "Move the grid's paths"]),
    "match": (
        {"tune": {"decoder.depth": [1, 2]}, "match": {"by": "parameters"}},
        ["tune.decoder.depth: found match and a tuned value outside"],
    ),
    "match by time": (
        {"match": {"by": "seconds"}, "tune": {"training.batch": [2, 4]}},
        ["tune.training.batch: found match by seconds and a tuned value that changes them"],
    ),
    "too many trials": ({"budget": {"trials": 20}}, ["budget.trials: found 21 trials"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_tuned_is_refused(case: str, tmp_path: Path) -> None:
    patch, words = REFUSED[case]
    with pytest.raises(PairformError) as error:
        run(tmp_path, TUNED | patch)
    assert all(word in str(error.value) for word in words), str(error.value)
    assert not (tmp_path / "study").exists()


def test_tuned_training_and_matched_sizes_go_together(tmp_path: Path, instant: Any) -> None:
    instant(tmp_path, {"match": {"by": "parameters", "tolerance": 0.2, "multiple": 1}})
    assert all(row["match"]["difference"] < 0.2 for row in summarise(tmp_path / "study") if row["variant"] == "merged")


def test_factors_have_effects_at_both_recipes(
    tmp_path: Path, instant: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    patch = {
        "variants": None,
        "factors": {"norm": {"post": {}, "pre": {"decoder": {"layer": {"placement": "pre"}}}}},
        "tune": {RATE: [0.01, 0.1]},
    }
    instant(tmp_path, patch)
    found = document(CommandLine(monkeypatch, capsys)("study", "status", tmp_path / "study", "--json"))
    tuned, same = (part[0]["effects"][1] for part in (found["factors"], found["tuning"]["same_recipe_factors"]))
    assert tuned["comparison"]["mean"] == pytest.approx(0.1, abs=0.01)
    assert same["comparison"]["mean"] == pytest.approx(0.4, abs=0.01)
    assert "Same recipe: Loss, over 3 seeds" in render(read_report(tmp_path / "study"))


def test_a_real_study_is_the_same_for_any_number_of_jobs(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    patch = {"tune": {RATE: [0.01, 0.1]}, "tune_seeds": [7], "seeds": [0, 1], "latency": True}
    one, two = ({trial.name: trial for trial in run(folder, patch, jobs=1 + n)} for n, folder in enumerate(folders))
    assert one == two
    assert len(one) in (4 + 4, 4 + 6)
    for name, trial in one.items():
        assert lines(folders[0], name) == lines(folders[1], name)
        assert ("latency" in result(folders[0], name)) == (trial.stage == "retrain"), "of a sweep, only the loss is measured"
    code = "import sys; from pairform.cli.main import app; app(sys.argv[1:], standalone_mode=False)"
    code += "; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, "study", "status", str(folders[0] / "study")], check=True, capture_output=True)


def test_status_and_report_tell_the_sweep_from_the_comparisons(
    tmp_path: Path, instant: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    command = CommandLine(monkeypatch, capsys)
    assert instant(tmp_path / "begun", most=5) == -5
    assert "5 of 12 trials of this sweep have ended" in render(read_report(tmp_path / "begun" / "study"))
    assert "separate" in command("study", "status", tmp_path / "begun" / "study").out
    instant(tmp_path, failing={("merged", 0.001)})
    said, page = command("study", "status", tmp_path / "study").out, render(read_report(tmp_path / "study"))
    found = document(command("study", "status", tmp_path / "study", "--json"))
    edge = f"the best {RATE}, 0.1, is the largest that was tried; a better one may lie outside."
    assert f"merged: {edge}" in said
    assert edge in page
    assert [row["best"] for row in found["tuning"]["sweeps"]] == [1, 2]
    tuned, same = (rows[1]["difference"]["loss"]["finding"] for rows in (found["variants"], found["tuning"]["same_recipe"]))
    assert tuned != same
    assert [line for line in said.splitlines() if line.startswith("merged: loss")] == [f"merged: {tuned}", f"merged: {same}"]
    section = page[page.index('id="tuning"') : page.index('id="results"')]
    assert same[1:] in section
    assert 'data-chart="sweep-1"' in section
    assert "2 failed." in page
