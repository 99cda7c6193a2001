"""Trials on Weights & Biases, through a module that stands for its package."""

import sys
from pathlib import Path

import pytest

from pairform.experiments.execution.worker import Work, run_trial
from pairform.experiments.results.records import TrialFolder
from pairform.registry import InputError, SpecError
from tests.adaptation.test_logging import WANDB, calls
from tests.studies.small_study import lines, run, write_results

NAME = "first-seed0"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package's folder."""
    folder = tmp_path / "packages"
    folder.mkdir()
    (folder / "wandb.py").write_text(WANDB)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    return folder


def test_a_trial_is_a_run_with_its_numbers(package: Path, tmp_path: Path) -> None:
    training = {"training": {"steps": 3, "batch": 4, "log_every": 1, "evaluate_every": 2}}
    folder = write_results(tmp_path, {"first": ["planned"]}, training)
    run_trial(Work(folder, tmp_path, wandb="pairs"), NAME)
    assert TrialFolder(folder, NAME).read().status == "done"
    (begun,) = calls(package, "init")
    assert (begun["project"], begun["name"], begun["config"]["variant"]) == ("pairs", NAME, "first")
    sent = {(tag, call["step"]): value for call in calls(package, "log") for tag, value in call["data"].items()}
    logged = {
        (f"{line['split']}/{name}", line["step"]): value
        for line in lines(tmp_path, NAME)
        for name, value in line.items()
        if name not in ("step", "split")
    }
    assert {key: value for key, value in sent.items() if not key[0].endswith("/seconds")} == pytest.approx(logged)
    assert [call["code"] for call in calls(package, "finish")] == [0]


def test_a_run_that_is_not_opened_fails_the_trial_with_what_to_do(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "no key")
    folder = write_results(tmp_path, {"first": ["planned"]})
    run_trial(Work(folder, tmp_path, wandb="pairs"), NAME)
    trial = TrialFolder(folder, NAME).read()
    assert trial.status == "failed"
    assert "wandb login" in str(trial.error)


def test_a_wrong_project_or_a_missing_package_ends_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SpecError, match="wandb"):
        run(tmp_path, wandb="a/b")
    monkeypatch.setattr("pairform.training.metrics.find_spec", lambda name: None)
    with pytest.raises(InputError, match="`wandb` is not installed"):
        run(tmp_path, wandb="pairs")
    assert not (tmp_path / "study").exists()
