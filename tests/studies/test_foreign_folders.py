"""A study, or its folder, that came from somebody else: nothing in it is run, or written through."""

import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pairform.experiments.execution.environment import commit
from pairform.experiments.results.records import TRIALS, trials_of
from pairform.registry import PairformError
from pairform.training.isolation import isolated
from tests.studies.small_study import run, write_study

ONE: dict[str, Any] = {"training": {"steps": 1}, "variants": {"merged": None}, "seeds": [0]}
TRIAL = f"{TRIALS}/separate-seed0"


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("done")
    run(folder, ONE)
    return folder


@pytest.fixture
def ran(done: Path, tmp_path: Path) -> Path:
    """A folder with a study that was run, and its file."""
    return Path(shutil.copytree(done, tmp_path, dirs_exist_ok=True))


def plan_again(folder: Path) -> None:
    """As if the study's only trial had not been run."""
    file = folder / "study" / TRIAL / "trial.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"status": "planned"}))


@pytest.mark.parametrize("place", [".lock", TRIALS, TRIAL, f"{TRIAL}/.lock", f"{TRIAL}/metrics.jsonl", "jobs"])
def test_nothing_is_written_through_a_link(place: str, ran: Path, tmp_path: Path) -> None:
    plan_again(ran)
    link, target = tmp_path / "study" / place, tmp_path / "mine"
    if link.exists():
        link.rename(target)
    else:
        target.mkdir()
    link.symlink_to(target)
    before = {path: path.read_bytes() for path in [target, *target.rglob("*")] if path.is_file()}
    with pytest.raises(PairformError, match="a symbolic link"):
        run(tmp_path, ONE)
    assert {path: path.read_bytes() for path in [target, *target.rglob("*")] if path.is_file()} == before


def test_a_trial_has_its_folders_name(ran: Path) -> None:
    file = ran / "study" / TRIAL / "trial.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"name": "../../elsewhere"}))
    with pytest.raises(PairformError, match=r"the name '\.\./\.\./elsewhere', expected its folder's: separate-seed0"):
        trials_of(ran / "study")


def git(folder: Path, *words: str) -> str:
    settings = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "core.fsmonitor=false")
    return subprocess.run(["git", "-C", str(folder), *settings, *words], check=True, capture_output=True, text=True).stdout


def test_the_commit_is_known_without_running_what_a_repository_configures(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / "inner").mkdir()
    file = tmp_path / "inner" / "file"
    file.write_text("one")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "one")
    head = git(tmp_path, "rev-parse", "HEAD").strip()
    assert commit(tmp_path / "inner") == head
    file.touch()
    assert commit(tmp_path) == head
    file.write_text("two")
    assert commit(tmp_path / "inner") == head + "+"
    time.sleep(1.0)  # Git may keep times in whole seconds: this change has the size and the time of what it replaced
    assert commit(tmp_path / "inner") == head + "+"
    ran = tmp_path / "ran"
    (tmp_path / ".gitattributes").write_text("* filter=own\n")
    with (tmp_path / ".git" / "config").open("a") as config:
        config.write(f'[core]\nfsmonitor = "touch {ran}; false"\n[filter "own"]\nclean = "touch {ran}; cat"\n')
    assert commit(tmp_path / "inner") == head + "+"
    assert not ran.exists()
    (tmp_path / ".git").rename(tmp_path / "inner" / "bare")
    assert commit(tmp_path / "inner" / "bare") is None


def test_modules_of_the_current_folder_are_not_imported(tmp_path: Path) -> None:
    """The command's own process does not see them either: its path begins with the script's folder."""
    file = write_study(tmp_path / "foreign", ONE)
    for name in ("selectors", "socket", "signal"):
        (file.parent / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nraise ImportError")
    (tmp_path / "own").mkdir()
    script = tmp_path / "own" / "pairform.py.txt"
    script.write_text('from pairform.cli.main import main\n\nif __name__ == "__main__":\n    main()\n')
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    words = [sys.executable, str(script), "study", "run", "study.json"]
    subprocess.run(words, cwd=file.parent, env=environment, check=True, stdout=subprocess.DEVNULL)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("first", ["", "folder"])
def test_workers_are_handed_no_path_with_the_current_folder(
    first: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`python -m pairform` has it first. A script's own folder is the user's choice, and stays."""
    path = [str(tmp_path) if first else "", "/elsewhere"]
    main = ModuleType("__main__")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(path))
    monkeypatch.setitem(sys.modules, "__main__", main)
    with isolated():
        assert sys.path == path[1:]
    assert sys.path == path
    main.__file__ = "script.py"
    with isolated():
        assert sys.path == path


@pytest.mark.parametrize("name", ["index", "HEAD", "config"])
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_a_repository_of_pipes_and_devices_has_no_commit(
    name: str, make: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pairform.experiments.execution.environment.SECONDS", 1)
    git(tmp_path, "init", "-q")
    (tmp_path / "file").touch()
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "one")
    (tmp_path / ".git" / name).unlink()
    make(tmp_path / ".git" / name)
    assert commit(tmp_path) is None


class Planted:
    """Leaves a file where it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.path, "w")


def test_a_pickle_that_lies_in_the_folder_is_not_loaded(ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slurm numbers its jobs one after another, so that a job's number can be guessed. Here scripts stand for it."""
    submitit = pytest.importorskip("submitit")
    monkeypatch.setattr(submitit.SlurmJob, "_results_timeout_s", 0)  # it waits for the result of a job that failed
    plan_again(ran)
    (tmp_path / "study" / "jobs").mkdir()
    planted = pickle.dumps(("success", Planted(str(tmp_path / "ran"))))
    (tmp_path / "study" / "jobs" / "777_0_result.pkl").write_bytes(planted)
    commands = {
        "sbatch": "echo Submitted batch job 777",
        "srun": "",
        "scancel": "",
        "sacct": "echo 'JobID|State|NodeList'; echo '777|FAILED|n1'",
    }
    for name, words in commands.items():
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{words}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    (trial,) = run(tmp_path, ONE, executor="slurm")
    assert trial.status == "failed"
    assert not (tmp_path / "ran").exists()
