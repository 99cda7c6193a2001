"""Logging to Weights & Biases, through a module that stands for its package and keeps calls in a file; and to TensorBoard."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from pairform.registry import InputError, OutputError, SpecError
from pairform.training.adaptation.run import InterruptedRunError, adapt
from pairform.training.loop import Loop
from tests.adaptation.small_run import SPEED, lines, write_run

WANDB = '''
import json, os
from pathlib import Path

CALLS = Path(__file__).with_name("calls.jsonl")
OFFLINE = os.environ.get("WANDB_MODE") == "offline"


def calls(kind):
    found = [json.loads(line) for line in CALLS.read_text().splitlines()] if CALLS.exists() else []
    return [call for call in found if call["call"] == kind]


def note(**call):
    with CALLS.open("a") as file:
        print(json.dumps(call), file=file)


class Settings:
    model_fields = {"symlink": None}


class Run:
    """As of 0.31: a resumed run goes on after the last step that the server has; offline, nobody knows of an earlier one."""

    def __init__(self):
        self.offline = OFFLINE
        self.step = 0 if OFFLINE else max((call["step"] + 1 for call in calls("log")), default=0)

    def log(self, data, step):
        if os.environ.get("WANDB_FAILS"):
            raise RuntimeError("the service is gone")
        note(call="log", data=data, step=step)

    def finish(self, exit_code):
        note(call="finish", code=exit_code)


def init(**settings):
    if os.environ.get("WANDB_MODE") == "no key":
        raise ValueError("api_key not configured (no-tty)")
    note(call="init", **settings)
    return Run()
'''
LOGGED: dict[str, Any] = {"logging": {"wandb": {"project": "pairs", "name": "small"}}}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The package's folder."""
    folder = tmp_path / "packages"
    folder.mkdir()
    (folder / "wandb.py").write_text(WANDB)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    yield folder
    sys.modules.pop("wandb", None)


def calls(package: Path, kind: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (package / "calls.jsonl").read_text().splitlines()]
    return [call for call in found if call["call"] == kind]


def interrupt(monkeypatch: pytest.MonkeyPatch, at: int, error: bool = False) -> None:
    """Interrupt the next run in the step `at`, from 0: by a signal, after which it writes a checkpoint, or by an error."""
    step = Loop.step

    def interrupted(self: Loop, number: int, batch: Any) -> Any:
        if number == at and error:
            raise MemoryError
        if number == at:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, number, batch)

    monkeypatch.setattr(Loop, "step", interrupted)


def check(package: Path, run: Path) -> None:
    """What was sent is what the lines of metrics have, once."""
    expected: dict[int, dict[str, float]] = {}
    for line in lines(run):
        numbers = {f"{line['split']}/{name}": value for name, value in line.items() if name not in ("step", "split")}
        expected.setdefault(line["step"], {}).update(numbers)
    found: dict[int, dict[str, float]] = {}
    for call in calls(package, "log"):
        sent = {tag: value for tag, value in call["data"].items() if tag.partition("/")[2] not in SPEED}
        assert not sent.keys() & found.get(call["step"], {}).keys(), f"step {call['step']} twice"
        found.setdefault(call["step"], {}).update(sent)
    assert found == expected


@pytest.mark.parametrize("mode", ["online", "offline"])
@pytest.mark.parametrize("error", [False, True], ids=["signal", "error"])
def test_each_step_is_sent_once_whatever_interrupts_the_run(
    mode: str, error: bool, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an error, steps since the last checkpoint are made again, and are there already."""
    monkeypatch.setenv("WANDB_MODE", mode)
    recipe = write_run(tmp_path, LOGGED | {"checkpoint": {"every": 2}, "evaluation": {"every": 2, "rows": 4}})
    with monkeypatch.context() as patch:
        interrupt(patch, 3, error)
        with pytest.raises(MemoryError if error else InterruptedRunError):
            adapt(recipe, tmp_path / "run")
    adapt(recipe, tmp_path / "run")
    check(package, tmp_path / "run")
    first, second = calls(package, "init")
    assert first["id"] == second["id"]
    assert (first["project"], first["name"], first["resume"]) == ("pairs", "small", "allow")
    assert (first["dir"], first["settings"]) == (str(tmp_path / "run"), {"symlink": False})
    assert first["config"]["steps"] == 6
    assert [call["code"] for call in calls(package, "finish")] == [1, 0]


def test_a_run_that_is_logged_later_is_there_from_its_beginning(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        interrupt(patch, 3)
        with pytest.raises(InterruptedRunError):
            adapt(write_run(tmp_path), tmp_path / "run")
    adapt(write_run(tmp_path, LOGGED), tmp_path / "run")
    check(package, tmp_path / "run")


def test_a_failure_while_training_is_warned_of(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_FAILS", "1")
    with pytest.warns(UserWarning, match=r"Weights & Biases failed.*the service is gone"):
        adapt(write_run(tmp_path, LOGGED), tmp_path / "run")
    assert len(lines(tmp_path / "run")) == 6


def test_a_run_without_a_login_is_refused(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "no key")
    with pytest.raises(InputError, match=r"logging.wandb: .*api_key not configured.*wandb login"):
        adapt(write_run(tmp_path, LOGGED), tmp_path / "run")


def test_an_id_that_is_none_is_refused(package: Path, tmp_path: Path) -> None:
    recipe = write_run(tmp_path, LOGGED)
    adapt(recipe, tmp_path / "run")
    (tmp_path / "run" / "wandb.json").write_text('{"id": "../../other"}')
    with pytest.raises(OutputError, match=r"wandb\.json"):
        adapt(recipe, tmp_path / "run")


@pytest.mark.parametrize("folder", [False, True], ids=["nothing", "a folder"])
def test_without_its_package_it_is_refused_before_anything_is_written(
    folder: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder `wandb` on the path, such as the package itself writes into the working directory, is no package."""
    if folder:
        if find_spec("wandb") is not None:
            pytest.skip("wandb is installed")
        (tmp_path / "packages" / "wandb").mkdir(parents=True)
        monkeypatch.syspath_prepend(tmp_path / "packages")
    else:
        monkeypatch.setattr("pairform.training.metrics.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"`wandb` is not installed.*pip install wandb"):
        adapt(write_run(tmp_path, LOGGED), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("wandb", [True, {}, {"project": ""}, {"project": "a/b"}, {"project": "a", "entity": "b"}])
def test_a_project_is_one_of_the_users(wandb: Any, tmp_path: Path) -> None:
    """A recipe from somebody else cannot send metrics to their account."""
    with pytest.raises(SpecError, match=r"logging\.wandb"):
        adapt(write_run(tmp_path, {"logging": {"wandb": wandb}}), tmp_path / "run")


def test_tensorboard_has_the_losses_of_every_objective(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    objectives = {"spans": {"name": "span_corruption", "window": 32}}
    patch = {"logging": {"tensorboard": True}, "evaluation": {"every": 6, "rows": 4, "objectives": objectives}}
    adapt(write_run(tmp_path, patch), tmp_path / "run")
    (events,) = (tmp_path / "run" / "tensorboard").glob("events.*")
    content = events.read_bytes()
    assert all(tag in content for tag in (b"train/loss", b"valid/loss", b"valid/spans/loss"))
