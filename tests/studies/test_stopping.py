"""A run that another process asks to stop, and a status that follows a run."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pairform.experiments.execution.stopping import Stop, request_stop
from pairform.experiments.results.following import changes
from pairform.experiments.results.records import TrialFolder
from pairform.registry import OutputError
from tests.command_line.runner import CommandLine, refused
from tests.studies.small_study import lines, run

LONG = {"variants": {"merged": None}, "training": {"steps": 150, "checkpoint_every": 10}, "seeds": [0, 1, 2]}


@contextmanager
def running(folder: Path) -> Iterator[None]:
    """A run of the study in a thread, of which the first trial trains; it has ended after the block."""
    ended: list[BaseException] = []

    def work() -> None:
        try:
            run(folder, LONG)
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    metrics = folder / "study" / "trials" / "separate-seed0" / "metrics.jsonl"
    while thread.is_alive() and not (metrics.exists() and metrics.stat().st_size):
        time.sleep(0.02)
    yield
    thread.join()
    assert not ended


def statuses(folder: Path) -> list[str]:
    return [TrialFolder(folder / "study", f"separate-seed{seed}").observe().status for seed in range(3)]


def test_a_stopped_run_continues_with_the_same_numbers(tmp_path: Path) -> None:
    with running(tmp_path / "stopped"):
        request_stop(tmp_path / "stopped" / "study")
        assert statuses(tmp_path / "stopped") == ["interrupted", "planned", "planned"]
    assert {trial.status for trial in run(tmp_path / "stopped", LONG)} == {"done"}
    run(tmp_path / "whole", LONG | {"seeds": [0]})
    assert lines(tmp_path / "stopped", "separate-seed0") == lines(tmp_path / "whole", "separate-seed0")


def test_running_trials_may_finish(tmp_path: Path) -> None:
    with running(tmp_path):
        request_stop(tmp_path / "study", Stop.AFTER_TRIALS)
        assert statuses(tmp_path) == ["done", "planned", "planned"]
    assert not (tmp_path / "study" / "stop.json").exists()


def test_there_must_be_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    command = CommandLine(monkeypatch, capsys)
    refused(command("study", "stop", tmp_path), 1, "no study.json")
    run(tmp_path, {"seeds": [0], "variants": {"merged": None}})
    refused(command("study", "stop", tmp_path / "study"), 1, "no run of this study")
    (tmp_path / "study" / "stop.json").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="link"):
        request_stop(tmp_path / "study")


def test_status_follows_a_run_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with running(tmp_path):
        seen = [statuses(tmp_path) for _ in changes(tmp_path / "study", 0.01)]
    assert seen[0] == ["running", "planned", "planned"]
    assert seen[-1] == ["done"] * 3
    capsys.readouterr()
    shown = CommandLine(monkeypatch, capsys)("study", "status", tmp_path / "study", "--watch")
    assert shown.code == 0
    assert shown.out.count("3 done") == 1
