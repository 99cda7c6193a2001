"""How many trials are at work at once, what ends them, and files that are whole at any moment."""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pairform.experiments.execution import run as running
from pairform.experiments.execution.cluster import Jobs
from pairform.experiments.execution.processes import Processes
from pairform.experiments.execution.run import run_trials
from pairform.experiments.execution.worker import Work
from pairform.experiments.results.records import LOCK, TRIALS, Trial, TrialFolder
from pairform.registry import PairformError
from pairform.registry.run_folders import is_locked, write_json
from tests.command_line.runner import CommandLine
from tests.studies.small_study import run, wait_for, write_results, write_study


class Executor:
    """Does nothing: each wait ends the trial that was started first. Counts the most that it was at work on."""

    def __init__(self, study: Path) -> None:
        self.study = study
        self.running: list[str] = []
        self.started: list[str] = []
        self.most = self.stops = 0

    def start(self, name: str) -> None:
        self.running.append(name)
        self.started.append(name)
        self.most = max(self.most, len(self.running))

    def wait(self, seconds: float) -> list[tuple[str, str]]:
        folder = TrialFolder(self.study, self.running.pop(0))
        folder.write(folder.read().at("done"))
        return [(folder.path.name, "")]

    def stop(self) -> None:
        self.stops += 1


@pytest.mark.parametrize("jobs", [1, 3, 9])
def test_as_many_trials_are_at_work_as_jobs_says(jobs: int, tmp_path: Path) -> None:
    out = write_results(tmp_path, {"a": ["planned"] * 5})
    executor, names = Executor(out), [f"a-seed{seed}" for seed in range(5)]
    ended: list[str] = []
    run_trials(out, iter(names), executor, jobs, None, lambda trial: ended.append(trial.name))
    assert executor.most == min(jobs, 5)
    assert executor.started == ended == names
    assert executor.stops == 1


def test_the_commands_jobs_are_those_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    most: list[int] = []
    monkeypatch.setattr(running, "Processes", lambda work: Executor(work.study))
    monkeypatch.setattr(running, "run_trials", lambda out, queue, executor, jobs, limit, report: most.append(jobs))
    for words, jobs in (([], 1), (["--jobs", 3], 3)):
        CommandLine(monkeypatch, capsys)("study", "run", write_study(tmp_path), *words)
        assert most.pop() == jobs


def test_no_trial_is_begun_after_the_minutes_of_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = write_results(tmp_path, {"a": ["planned"] * 5})
    times = iter([10.0, 50.0, 61.0, 70.0, 80.0, 90.0])
    monkeypatch.setattr(running, "time", SimpleNamespace(monotonic=lambda: next(times)))
    executor = Executor(out)
    run_trials(out, (f"a-seed{seed}" for seed in range(5)), executor, 1, 60.0, lambda trial: None)
    assert executor.started == ["a-seed0", "a-seed1"]


def test_what_ends_a_study_stops_the_trials_at_work(tmp_path: Path) -> None:
    out = write_results(tmp_path, {"a": ["planned"] * 5})
    executor = Executor(out)

    def interrupted(trial: Trial) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_trials(out, iter(["a-seed0", "a-seed1", "a-seed2"]), executor, 2, None, interrupted)
    assert (executor.started, executor.stops) == (["a-seed0", "a-seed1"], 1)


def test_processes_that_are_stopped_have_ended(tmp_path: Path) -> None:
    """In this process, which lives on."""
    training = {"steps": 1_000_000, "evaluate_every": None}
    out = write_results(tmp_path, {"a": ["planned"]}, {"training": training})
    processes = Processes(Work(out, tmp_path))
    processes.start("a-seed0")
    try:
        wait_for(lambda: (out / TRIALS / "a-seed0" / "metrics.jsonl").exists())
        assert is_locked(out / TRIALS / "a-seed0" / LOCK)
        at_work = [process for _, process in processes.running.values()]
        processes.stop()
        assert not is_locked(out / TRIALS / "a-seed0" / LOCK)
        assert not processes.running
        assert [process.exitcode is None for process in at_work] == [False]
    finally:
        for _, process in processes.running.values():
            process.kill()


def test_jobs_that_are_stopped_are_cancelled(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    cancelled: list[str] = []
    jobs = Jobs(Work(tmp_path, tmp_path), {}, "local")
    jobs.running = {name: SimpleNamespace(cancel=lambda name=name: cancelled.append(name)) for name in ("a", "b")}
    jobs.stop()
    assert cancelled == ["a", "b"]


def test_a_file_is_the_old_one_until_the_new_one_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever happens while it is written: here the disk is full at the end."""
    file = tmp_path / "trial.json"
    write_json(file, {"status": "running"})
    real = os.replace

    def full(source: Any, target: Any) -> None:
        assert json.loads(file.read_text()) == {"status": "running"}
        assert json.loads(Path(source).read_text()) == {"status": "done"}
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(PairformError, match="No space left on device"):
        write_json(file, {"status": "done"})
    assert json.loads(file.read_text()) == {"status": "running"}
    assert [path.name for path in tmp_path.iterdir()] == ["trial.json"]
    monkeypatch.setattr(os, "replace", real)
    write_json(file, {"status": "done"})
    assert json.loads(file.read_text()) == {"status": "done"}


def test_what_a_run_writes_replaces_whole_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every document of a study's folder goes through the one function above; lines of metrics are appended."""
    replaced: set[str] = set()
    real = os.replace

    def replace(source: Any, target: Any) -> None:
        replaced.add(Path(target).name)
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    run(tmp_path, {"training": {"steps": 0}, "variants": {"merged": None}, "seeds": [0]})
    written = {path.name for path in (tmp_path / "study").rglob("*.json")}
    assert written - replaced == {"result.json"}, "which the trial's process wrote"
