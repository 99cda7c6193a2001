"""Trials as a cluster's jobs, and metrics for TensorBoard."""

import struct
from pathlib import Path
from typing import Any

import pytest

import pairform
from tests.command_line.runner import CommandLine, refused
from tests.studies.small_study import lines, run, write_study

ONE: dict[str, Any] = {"variants": {"merged": None}, "seeds": [0]}
HUGE = {"training": {"optimizer": {"name": "sgd", "learning_rate": 1e30}, "steps": 6}}


def test_jobs_give_the_same_numbers_as_processes(tmp_path: Path) -> None:
    """Through submitit's own executor for one machine."""
    pytest.importorskip("submitit")
    run(tmp_path / "processes", ONE)
    trials = run(tmp_path / "jobs", ONE | {"variants": {"merged": None, "diverges": HUGE}}, executor="submitit", jobs=2)
    assert {trial.name: trial.status for trial in trials} == {"separate-seed0": "done", "diverges-seed0": "failed"}
    assert lines(tmp_path / "jobs", "separate-seed0") == lines(tmp_path / "processes", "separate-seed0")
    again = run(tmp_path / "jobs", ONE | {"variants": {"merged": None, "diverges": HUGE}}, executor="submitit")
    assert again == trials


def test_an_executor_that_is_not_there_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_study(tmp_path, ONE)
    monkeypatch.setenv("PATH", str(tmp_path))
    command = CommandLine(monkeypatch, capsys)
    refused(command("study", "run", file, "--executor", "slurm"), 1, "no command srun")
    refused(command("study", "run", file, "--executor", "slrm"), 1, "'slrm'", "local or slurm or submitit")
    refused(command("study", "run", file, "--slurm", "partition=gpu"), 1, "partition", "no cluster settings")
    pytest.importorskip("submitit")
    refused(command("study", "run", file, "--executor", "submitit", "--slurm", "partitoin=gpu"), 1, "slurm", "partitoin")
    assert not (tmp_path / "study").exists()


def scalars(folder: Path) -> dict[tuple[str, int], float]:
    """Tag and step of each scalar in a folder of TensorBoard's: records of a length, a checksum, an event, a checksum."""
    from tensorboardX.proto.event_pb2 import Event

    found = {}
    for file in folder.glob("events.*"):
        content = file.read_bytes()
        place = 0
        while place < len(content):
            (length,) = struct.unpack_from("<Q", content, place)
            event = Event.FromString(content[place + 12 : place + 12 + length])
            place += length + 16
            found.update({(value.tag, event.step): value.simple_value for value in event.summary.value})
    return found


def test_tensorboard_has_what_the_lines_have(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    run(tmp_path, ONE, tensorboard=True)
    folder = tmp_path / "study" / "trials" / "separate-seed0" / "tensorboard"
    written = scalars(folder)
    expected = {
        (f"{line['split']}/{name}", line["step"]): value
        for line in lines(tmp_path, "separate-seed0")
        for name, value in line.items()
        if name not in ("step", "split")
    }
    assert {key: value for key, value in written.items() if not key[0].endswith("/seconds")} == pytest.approx(expected)


def test_without_its_package_tensorboard_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pairform.training.metrics.find_spec", lambda name: None)
    with pytest.raises(pairform.PairformError, match=r"`tensorboardX` is not installed.*pairform\[study\]"):
        run(tmp_path, ONE, tensorboard=True)
    assert not (tmp_path / "study").exists()
