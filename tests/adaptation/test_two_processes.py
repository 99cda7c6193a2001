"""Runs in two processes, as torchrun starts them: the numbers of one process, and one voice."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pairform.training.adaptation.run import adapt
from pairform.training.adaptation.run_folder import status_of
from tests.adaptation.small_run import EVALUATION, RECIPE, lines, write_run
from tests.forked import pairform_in_two


def torchrun(recipe: Path, out: Path) -> list[str]:
    """The command of a run in two processes."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return [*start, "-m", "pairform", "adapt", "run", str(recipe), "--out", str(out)]


def errors_in(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith("error: ")]


def test_one_of_two_processes_tells_of_a_diverged_run(tmp_path: Path) -> None:
    recipe = write_run(
        tmp_path, {"device": "cpu", "optimizer": {"name": "sgd", "learning_rate": 1e30}, "clip": "none", "steps": 20}
    )
    said = pairform_in_two("adapt", "run", recipe, "--out", tmp_path / "run", said=tmp_path / "said", codes=(1, 1))
    (error,) = errors_in("\n".join(said))
    assert "the loss is nan at step" in error
    assert "Lower optimizer.learning_rate" in error


def test_an_interrupt_from_the_terminal_ends_two_processes_after_a_checkpoint(tmp_path: Path) -> None:
    """It reaches each process twice: directly, and through torchrun."""
    recipe = write_run(tmp_path, {"device": "cpu", "steps": 100_000, "checkpoint": {"every": 100_000}})
    process = subprocess.Popen(
        torchrun(recipe, tmp_path / "run"), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True
    )
    while process.poll() is None and not ((tmp_path / "run" / "metrics.jsonl").exists() and len(lines(tmp_path / "run"))):
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    (error,) = errors_in(process.communicate(timeout=300)[1])
    assert process.returncode != 0
    assert "Run the same command to continue" in error
    assert status_of(tmp_path / "run")["checkpoint"] == len(lines(tmp_path / "run"))


def test_two_processes_give_the_losses_of_one_which_goes_on_with_their_run(tmp_path: Path) -> None:
    recipe = write_run(
        tmp_path,
        EVALUATION | {"device": "cpu", "data": RECIPE["data"] | {"objective": {"name": "span_corruption", "window": 32}}},
    )
    alone = lines(adapt(recipe, tmp_path / "alone"))
    pairform_in_two("adapt", "run", recipe, "--out", tmp_path / "run", said=tmp_path / "said")
    for finished in range(2):
        for one, two in zip(alone, lines(tmp_path / "run"), strict=True):
            assert two["loss"] == pytest.approx(one["loss"], rel=1e-6)
        if not finished:  # the last steps again, in one process
            shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-6")
            adapt(recipe, tmp_path / "run")
