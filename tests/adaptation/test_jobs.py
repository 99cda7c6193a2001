"""Runs as jobs, by submitit's executor for one machine and by a cluster that only notes what it is given."""

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from pairform.registry import InputError
from pairform.training.adaptation.interruption import Signals
from pairform.training.adaptation.jobs import submit
from pairform.training.adaptation.run import adapt
from pairform.training.adaptation.run_folder import status_of
from pairform.training.cluster import minutes, wait
from tests.adaptation.small_run import lines, terminate_in, write_run
from tests.command_line.runner import CommandLine, document, refused
from tests.forked import pairform_in_two

SBATCH = '#!/bin/sh\ncat "$1" > "$0.script"\necho "Submitted batch job 77"\n'
REFUSES = '#!/bin/sh\necho "sbatch: error: invalid partition specified: gpuu" >&2\nexit 1\n'


SIGNALLED = """
import os, signal

if "SUBMITIT_LOCAL_GLOBALID" in os.environ:  # a process of the job
    from pairform.training.loop import Loop

    step = Loop.step

    def signalled(self, number, batch):
        if number == 2:
            os.kill(os.getpid(), signal.SIGUSR2)
        return step(self, number, batch)

    Loop.step = signalled
"""
"""Sends a process Slurm's signal in the third step, which is not made again after the checkpoint that follows."""


def test_a_job_at_its_time_limit_is_requeued_and_gives_the_losses_of_other_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit")
    recipe = write_run(tmp_path, {"checkpoint": {"every": 1000}})
    same = shutil.copy(recipe, tmp_path / "same.json")
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "sitecustomize.py").write_text(SIGNALLED)
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path / "modules"), prepend=os.pathsep)
        job = submit(recipe, tmp_path / "job", "local", {"tasks_per_node": 2})
    recipe.write_text("{}")  # the job has its own
    wait(job)
    assert status_of(tmp_path / "job")["status"] == "done"
    assert "Requeued job" in "".join(file.read_text() for file in (tmp_path / "job" / "jobs").glob("*/*_0_log.*"))
    assert sorted(path.name for path in (tmp_path / "job" / "checkpoints").iterdir()) == ["step-3", "step-6"]
    pairform_in_two("adapt", "run", same, "--out", tmp_path / "run", said=tmp_path / "said")
    assert lines(tmp_path / "job") == lines(tmp_path / "run")


def test_the_command_line_waits_for_a_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("submitit")
    recipe = write_run(tmp_path)
    words = ["adapt", "run", recipe, "--out", tmp_path / "job", "--executor", "submitit", "--wait"]
    status = document(CommandLine(monkeypatch, capsys)(*words, "--json"))
    assert (status["status"], status["step"]) == ("done", 6)
    assert status["job"].startswith("local ")
    assert lines(tmp_path / "job") == lines(adapt(recipe, tmp_path / "run"))
    recipe.write_text(recipe.read_text().replace('"seed": 1', '"seed": 2'))
    refused(CommandLine(monkeypatch, capsys)(*words), 1, "another recipe")


def cluster(folder: Path, sbatch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with Slurm's commands, whose sbatch is the given script."""
    folder.mkdir()
    for name, text in {"srun": "#!/bin/sh\n", "sbatch": sbatch}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_a_job_is_submitted_to_slurm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("submitit")
    cluster(tmp_path / "bin", SBATCH, monkeypatch)
    settings = ["nodes=2", "gpus_per_node=a100:4", "time=1-12", "partition=gpu"]
    words = [word for setting in settings for word in ("--slurm", setting)]
    command = CommandLine(monkeypatch, capsys)
    run = ("adapt", "run", write_run(tmp_path), "--out", tmp_path / "run", "--executor", "slurm")
    assert "slurm 77, logs in" in command(*run, *words).out
    script = (tmp_path / "bin" / "sbatch.script").read_text()
    for line in ("nodes=2", "ntasks-per-node=4", "gpus-per-node=a100:4", "time=2160", "partition=gpu", "signal=USR2@90"):
        assert f"#SBATCH --{line}\n" in script
    status = document(command("adapt", "status", tmp_path / "run", "--json"))
    assert (status["status"], status["step"]) == ("submitted", 0)


def test_what_slurm_refuses_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("submitit")
    cluster(tmp_path / "bin", REFUSES, monkeypatch)
    words = ("--executor", "slurm", "--slurm", "time=60", "--slurm", "partition=gpuu")
    result = CommandLine(monkeypatch, capsys)("adapt", "run", write_run(tmp_path), "--out", tmp_path / "run", *words)
    refused(result, 1, "invalid partition specified: gpuu", "settings that sbatch accepts")


REFUSED: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "executor": (["--executor", "slrm"], ("'slrm'", "local or slurm or submitit")),
    "settings without a cluster": (["--slurm", "partition=gpu"], ("partition", "no cluster settings")),
    "no time": (["--executor", "slurm"], ("slurm.time", "no time limit")),
    "no Slurm": (["--executor", "slurm", "--slurm", "time=60"], ("no command srun",)),
    "setting": (["--executor", "submitit", "--slurm", "partitoin=gpu"], ("slurm", "partitoin")),
    "number": (["--executor", "submitit", "--slurm", "tasks_per_node=two"], ("slurm.tasks_per_node", "'two'")),
    "time": (["--executor", "submitit", "--slurm", "time=soon"], ("slurm.time", "'soon'", "minutes")),
    "processes": (["--executor", "submitit", "--slurm", "tasks_per_node=3"], ("batch", "3")),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_job_that_cannot_run_is_refused_before_anything_is_written(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("submitit")
    recipe = write_run(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    words, told = REFUSED[case]
    refused(CommandLine(monkeypatch, capsys)("adapt", "run", recipe, "--out", tmp_path / "run", *words), 1, *told)
    assert not (tmp_path / "run").exists()


def test_torchrun_does_not_submit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(InputError, match="without torchrun"):
        submit(write_run(tmp_path), tmp_path / "run", "local", {})


def test_a_signal_at_which_a_run_saves_does_not_end_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be killed next, or not: here it is not."""
    recipe = write_run(tmp_path, {"checkpoint": {"every": 1000}})
    terminate_in(2, monkeypatch)
    adapt(recipe, tmp_path / "run", signals=Signals(stop=(signal.SIGUSR2,), save=(signal.SIGTERM,)))
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == ["step-3", "step-6"]


TIMES: dict[Any, int | None] = {
    60: 60,
    "60": 60,
    "1:30": 2,
    "2:00:00": 120,
    "1-0": 1440,
    "1-12:30": 2190,
    "1-00:00:01": 1441,
    0: None,
    "-5": None,
    -5: None,
    "1-": None,
    1.5: None,
    "1:2:3:4": None,
    "99999999999": None,
}


@pytest.mark.parametrize("limit", TIMES)
def test_time_limits_are_those_of_slurm(limit: Any) -> None:
    if (expected := TIMES[limit]) is not None:
        assert minutes(limit) == expected
    else:
        with pytest.raises(InputError, match=r"slurm\.time"):
            minutes(limit)
