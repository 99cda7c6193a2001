"""A study that is stopped: its trials end with it, whatever ended it, and its folder says so."""

import os
import signal
from multiprocessing import Pipe
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from pairform.experiments.execution.processes import run_attached
from pairform.experiments.execution.worker import Work
from pairform.experiments.results.records import LOCK, TRIALS, trials_of
from pairform.registry.run_folders import is_locked
from tests.command_line.runner import CommandLine
from tests.forked import ended, kill_session, start_pairform
from tests.studies.small_study import wait_for, write_study

NAME = "separate-seed0"
ENDLESS = {"variants": {"merged": None}, "seeds": [0, 1], "training": {"steps": 1_000_000, "evaluate_every": None}}
TOLD = "interrupted; run the same command to continue\n"


def wait_until(folder: Path, *, works: bool) -> None:
    """Wait until a process works on the trial and logs, or until none does."""
    trial = folder / "study" / TRIALS / NAME
    wait_for(lambda: is_locked(trial / LOCK) == works and (not works or (trial / "metrics.jsonl").exists()))


@pytest.mark.parametrize("way", ["ctrl-c", "SIGTERM", "SIGKILL"])
def test_trials_end_with_their_study(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A terminal's Ctrl-C reaches every process of the study, the other signals only the first."""
    begun = start_pairform("study", "run", write_study(tmp_path, ENDLESS), said=tmp_path / "said")
    try:
        stop(begun, way, tmp_path)
    finally:
        kill_session(begun)  # trials without an end must not outlive a test that fails
    told = {"ctrl-c": (130, TOLD), "SIGTERM": (143, TOLD), "SIGKILL": (-9, "")}
    assert (begun.exitcode, (tmp_path / "said").read_text()) == told[way]
    status = CommandLine(monkeypatch, capsys)("study", "status", tmp_path / "study")
    assert "1 interrupted, 1 planned" in status.out


def stop(begun: BaseProcess, way: str, folder: Path) -> None:
    """Stop a study at work; wait until it and its trial have ended."""
    wait_until(folder, works=True)
    assert begun.pid is not None
    assert [trial.status for trial in trials_of(folder / "study")] == ["running", "planned"]
    if way == "ctrl-c":
        os.killpg(begun.pid, signal.SIGINT)
    else:
        os.kill(begun.pid, getattr(signal, way))
    ended(begun, 120)
    wait_until(folder, works=False)


def test_a_trial_whose_start_was_interrupted_does_not_begin(tmp_path: Path) -> None:
    reader, writer = Pipe(duplex=False)
    writer.close()
    run_attached(reader, Work(tmp_path, tmp_path), "none: its folder is not looked for")
    assert not (tmp_path / TRIALS).exists()
