"""As many seeds as the differences of a study need."""

import json
from pathlib import Path
from typing import Any

import pytest

from pairform.experiments.execution import run as running
from pairform.experiments.results.records import TrialFolder, trials_of
from pairform.experiments.study.planning import read_study
from pairform.experiments.study.precision import precise
from pairform.registry import SpecError
from pairform.registry.run_folders import write_json
from tests.studies.small_study import run, write_results, write_study

LOSSES = {
    "separate": [3.0, 4.0, 5.0, 4.0, 3.5, 4.5],
    "merged": [3.2, 4.0, 4.8, 4.0, 3.5, 4.5],
}
"""Their differences are 0.2, 0, -0.2, and 0 from then on."""


class Executor:
    """Trials end at once, with known losses. It counts them, and may end the process."""

    def __init__(self, study: Path, most: int) -> None:
        self.study, self.most = study, most
        self.running: list[str] = []
        self.started: list[str] = []

    def start(self, name: str) -> None:
        if len(self.started) == self.most:
            raise KeyboardInterrupt
        self.running.append(name)
        self.started.append(name)

    def wait(self, seconds: float) -> list[tuple[str, str]]:
        folder = TrialFolder(self.study, name := self.running.pop(0))
        trial = folder.read()
        write_json(folder.path / "result.json", {"loss": LOSSES[trial.variant][trial.seed]})
        folder.write(trial.at("done"))
        return [(name, "")]

    def stop(self) -> None:
        self.running.clear()


def run_until(
    folder: Path, monkeypatch: pytest.MonkeyPatch, until: float, most: int = 6, trials: int = 100, **options: Any
) -> int:
    """Run the study; the number of seeds that it has then."""
    executor = Executor(folder / "study", trials)
    monkeypatch.setattr(running, "make_executor", lambda *_: executor)
    try:
        run(folder, {"seeds": {"until": until, "most": most}}, **options)
    except KeyboardInterrupt:
        return -1
    return len({trial.seed for trial in trials_of(folder / "study")})


@pytest.mark.parametrize(("until", "seeds"), [(1.0, 3), (0.27, 4), (0.18, 5), (0.14, 6), (1e-3, 6)])
def test_seeds_are_added_until_the_interval_is_narrow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, until: float, seeds: int
) -> None:
    assert run_until(tmp_path, monkeypatch, until) == seeds
    assert precise(tmp_path / "study", until, seeds) == (until > 1e-3)
    assert seeds == 3 or not precise(tmp_path / "study", until, seeds - 1)


@pytest.mark.parametrize("trials", range(1, 10))
def test_an_interrupted_run_needs_the_same_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trials: int) -> None:
    assert run_until(tmp_path, monkeypatch, 0.18, trials=trials) == -1
    assert run_until(tmp_path, monkeypatch, 0.18, jobs=2) == 5
    assert {trial.status for trial in trials_of(tmp_path / "study")} == {"done"}


def test_a_smaller_width_continues_the_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_until(tmp_path, monkeypatch, 1.0) == 3
    assert run_until(tmp_path, monkeypatch, 0.18) == 5


def test_chosen_variants_get_the_first_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_until(tmp_path, monkeypatch, 1e-3, only=["separate"]) == 3
    assert {trial.variant for trial in trials_of(tmp_path / "study") if trial.status == "done"} == {"separate"}


def test_variants_with_failed_trials_do_not_ask_for_seeds(tmp_path: Path) -> None:
    folder = write_results(tmp_path, {"a": [1.0, 2.0, 3.0], "b": [1.1, 2.1, 3.1], "c": [5.0, None, None]})
    assert precise(folder, 0.1, 3)
    assert not precise(folder, 0.1, 2), "two seeds have no interval"


def test_a_real_study_runs_until_its_seeds_are_used_up(tmp_path: Path) -> None:
    trials = run(tmp_path, {"seeds": {"until": 1e-9, "most": 4}, "training": {"steps": 1}})
    assert {trial.status for trial in trials} == {"done"}
    assert {trial.seed for trial in trials} == {0, 1, 2, 3}


@pytest.mark.parametrize("patch", [{"until": 0}, {"until": 0.1, "most": 2}, {"most": 5}, {"until": 0.1, "least": 4}])
def test_what_is_no_rule_is_refused(tmp_path: Path, patch: dict[str, Any]) -> None:
    file = write_study(tmp_path)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"seeds": patch}))
    with pytest.raises(SpecError, match="seeds"):
        read_study(file)
