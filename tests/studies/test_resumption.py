"""Trials that resume in their midst, to the same numbers."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from pairform.experiments.execution.run import run_study
from pairform.experiments.execution.worker import Work, run_trial
from pairform.experiments.results.records import TRIALS, Trial, TrialFolder
from pairform.experiments.study.planning import read_study
from pairform.registry import OutputError
from pairform.training.checkpoints import latest
from pairform.training.optimization.spikes import DivergedError
from tests.forked import ended, kill_session, start_pairform
from tests.studies import small_study
from tests.studies.by_hand import kept_settings
from tests.studies.measuring import text_study, write_lines
from tests.studies.small_study import HEADS, lines, result, wait_for, write_results, write_study

NAME = "separate-seed0"
DROPOUT = {"encoder": {"layer": {"branches": {"self_attention": {**HEADS, "dropout": 0.2}}}}}
PATCH: dict[str, Any] = {
    "base": DROPOUT,
    "variants": {"merged": None},
    "training": {
        "steps": 40,
        "evaluate_every": 5,
        "checkpoint_every": 2,
        "phases": [{"steps": 3, "train": ["*cross_attention*"]}],
    },
    "seeds": [0],
}
MEASURES = ("loss", "accuracy", "exact_match")


def whole(folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """What a trial that is not interrupted logs, and its result."""
    prepared(folder)
    work(folder)
    return lines(folder, NAME), result(folder, NAME)


def prepared(folder: Path) -> None:
    write_results(folder, {"separate": ["planned"]}, {name: value for name, value in PATCH.items() if name != "variants"})


def work(folder: Path) -> None:
    with kept_settings():
        run_trial(Work(folder / "study", folder), NAME)


def test_a_trial_that_was_killed_resumes_to_the_same_numbers(tmp_path: Path) -> None:
    """From its last checkpoint: what it logged before stays as it was. Its dropout goes on with the same random numbers."""
    command, said = ("study", "run", write_study(tmp_path, PATCH)), tmp_path / "said"
    folder = TrialFolder(tmp_path / "study", NAME)
    begun = start_pairform(*command, said=said)
    try:
        wait_for(lambda: (latest(folder.checkpoints) or 0) >= 6)
    finally:
        kill_session(begun)
    step = latest(folder.checkpoints)
    assert step is not None
    assert step < 40
    before = (folder.path / "metrics.jsonl").read_text().splitlines()[:step]
    assert ended(start_pairform(*command, said=said)) == 0, said.read_text()
    assert (folder.path / "metrics.jsonl").read_text().splitlines()[:step] == before
    assert (folder.read().status, folder.read().attempts, folder.checkpoints.exists()) == ("done", 2, False)
    (tmp_path / "whole").mkdir()
    logged, measured = whole(tmp_path / "whole")
    assert lines(tmp_path, NAME) == logged
    assert [result(tmp_path, NAME)[name] for name in MEASURES] == [measured[name] for name in MEASURES]


class KilledError(BaseException):
    """Stands for a signal."""


def interrupted(folder: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> TrialFolder:
    """A trial that ended before its checkpoint of step `at`."""
    prepared(folder)

    def save(checkpoints: Path, step: int, *rest: Any) -> None:
        if step == at:
            raise KilledError
        small(checkpoints, step, *rest)

    module = "pairform.experiments.execution.trial"
    small = sys.modules[module].save_checkpoint
    with monkeypatch.context() as patch:
        patch.setattr(f"{module}.save_checkpoint", save)
        with pytest.raises(KilledError):
            work(folder)
    return TrialFolder(folder / "study", NAME)


def test_only_the_last_checkpoint_is_kept_and_none_of_a_done_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = interrupted(tmp_path, monkeypatch, at=8)
    assert [path.name for path in folder.checkpoints.iterdir()] == ["step-6"]
    work(tmp_path)
    assert folder.read().status == "done"
    assert not folder.checkpoints.exists()
    (tmp_path / "whole").mkdir()
    assert lines(tmp_path, NAME) == whole(tmp_path / "whole")[0]


def test_a_damaged_checkpoint_fails_the_trial_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = interrupted(tmp_path, monkeypatch, at=4)
    (data,) = (folder.checkpoints / "step-2").glob("*.distcp")
    data.write_bytes(data.read_bytes()[:-1])
    work(tmp_path)
    trial = folder.read()
    assert trial.status == "failed"
    assert "step-2" in str(trial.error)
    assert not folder.checkpoints.exists()
    folder.write(trial.at("planned"))
    work(tmp_path)
    assert folder.read().status == "done"


def test_a_trial_that_diverges_keeps_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Resumed, it would diverge again."""

    def diverges(*_: Any) -> None:
        raise DivergedError("the loss is nan at step 5")

    folder = interrupted(tmp_path, monkeypatch, at=4)
    with monkeypatch.context() as patch:
        patch.setattr("pairform.experiments.execution.trial.save_checkpoint", diverges)
        work(tmp_path)
    assert folder.read().status == "failed"
    assert not folder.checkpoints.exists()


def test_the_interval_of_checkpoints_may_change(tmp_path: Path) -> None:
    """Numbers do not depend on it: done trials stay as they are, others follow."""
    patch = {"variants": {"merged": None}, "seeds": [0], "training": {"steps": 0}}
    small_study.run(tmp_path, patch)
    trials = small_study.run(tmp_path, patch | {"training": {"steps": 0, "checkpoint_every": 5}})
    assert [(trial.status, trial.attempts) for trial in trials] == [("done", 1)]
    assert (tmp_path / "study" / TRIALS / NAME / "trial.json").read_text().count('"checkpoint_every": 5') == 1


def test_measures_are_the_same_after_a_kill_between_training_and_measuring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trial resumes from its last checkpoint, trains to the end again and is measured."""
    monkeypatch.setitem(PATCH, "measures", [{"name": "generation"}, {"name": "length_extrapolation"}])
    prepared(tmp_path)

    def killed(*_: Any) -> Any:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr("pairform.experiments.evaluation.generation.greedy", killed)
        with pytest.raises(KilledError):
            work(tmp_path)
    work(tmp_path)
    (tmp_path / "whole").mkdir()
    logged, measured = whole(tmp_path / "whole")
    assert lines(tmp_path, NAME) == logged
    names = [*MEASURES, "generation.exact_match", *(name for name in measured if name.startswith("length_extrapolation."))]
    assert len(names) == 8
    assert [result(tmp_path, NAME)[name] for name in names] == [measured[name] for name in names]


def test_other_measures_or_other_contents_of_their_files_need_another_folder(tmp_path: Path) -> None:
    """The weights of trials that are done are not kept. Times to a loss come from metrics, and may be asked for later."""
    measures = [{"name": "generation", "file": "q.jsonl"}]
    file = text_study(tmp_path, measures, {"training": {"steps": 0, "evaluate_every": 1}})
    write_lines(tmp_path / "q.jsonl", [{"source": "a", "target": "b"}])

    def again(*more: dict[str, Any]) -> list[Trial]:
        file.write_text(json.dumps(json.loads(file.read_text()) | {"measures": [*measures, *more]}))
        return run_study(read_study(file), tmp_path / "study", source=tmp_path)

    assert {trial.status for trial in again()} == {"done"}
    assert {trial.attempts for trial in again({"name": "time_to_loss"})} == {1}
    with pytest.raises(OutputError, match="trials with other measures"):
        again({"name": "generation", "label": "own"})
    write_lines(tmp_path / "q.jsonl", [{"source": "a", "target": "c"}])
    with pytest.raises(OutputError, match=r"other contents of measures: q\.jsonl"):
        again()
