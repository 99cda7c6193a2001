"""A conversion that is killed leaves nothing under the target's name, and the next one finishes as if nothing had happened."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

import pairform
from tests.checkpoints import gemma2

SIZES: dict[str, Any] = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "vocab_size": 12000,
    "num_attention_heads": 8,
    "head_dim": 32,
}
KILLS, SEED = 6, 3
START = 30.0
"""Seconds within which a process must have begun to write."""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Sources and options whose conversion takes a good part of a second: every tensor is converted or drawn."""
    parent = tmp_path_factory.mktemp("sources")
    sources = {role: gemma2(parent / role, seed=seed, **SIZES) for seed, role in enumerate(("encoder", "decoder"))}
    return {**sources, "cross_attention": "random", "dtype": "bfloat16", "max_shard_size": "2MB"}


@pytest.fixture(scope="module")
def whole(pair: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a conversion that was left in peace."""
    return files(pairform.convert(**pair, out=tmp_path_factory.mktemp("undisturbed") / "out").out)


@pytest.fixture(scope="module")
def server() -> Any:
    """Forks processes that have torch loaded already, so that a kill hits the conversion and not an import."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pairform.assemblies.initialisation.execute"])
    return context


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def start(server: Any, pair: dict[str, Any], out: Path) -> BaseProcess:
    """A conversion in another process that has begun to write."""
    process: BaseProcess = server.Process(target=pairform.convert, kwargs={**pair, "out": out})
    process.start()
    deadline = time.monotonic() + START
    while not any(out.parent.iterdir()) and process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.001)
    assert any(out.parent.iterdir()), "it never began"
    return process


def end(process: BaseProcess) -> None:
    process.join(START)
    assert process.exitcode is not None


def written(folder: Path) -> int:
    """Bytes that files under `folder` have now; one may vanish while they are counted."""
    size = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            size += path.stat().st_size
    return size


def test_killed_conversions_leave_no_target_and_the_next_ones_are_whole(
    server: Any, pair: dict[str, Any], whole: dict[str, bytes], tmp_path: Path
) -> None:
    """Each is killed when a number of bytes is written that follows from the seed; a few may be quicker than the signal."""
    chance, size, landed = random.Random(SEED), sum(map(len, whole.values())), 0
    print(f"seed {SEED}")
    for moment in range(KILLS):
        folder = tmp_path / str(moment)
        folder.mkdir()
        wanted = chance.uniform(0, size)
        process = start(server, pair, folder / "out")
        while process.is_alive() and written(folder) < wanted:
            time.sleep(0.001)
        process.kill()
        end(process)
        if process.exitcode == 0:
            assert files(folder / "out") == whole, "it was finished before the signal came"
            continue
        landed += 1
        assert process.exitcode == -signal.SIGKILL
        assert not (folder / "out").exists()
        pairform.convert(**pair, out=folder / "out")
        assert files(folder / "out") == whole
        assert [path.name for path in folder.iterdir()] == ["out"]
    assert landed >= KILLS / 2


def test_a_killed_overwrite_keeps_the_old_model(server: Any, pair: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "out"
    pairform.convert(**pair, seed=9, out=out)
    before = files(out)
    process = server.Process(target=pairform.convert, kwargs={**pair, "out": out, "overwrite": True})
    process.start()
    deadline = time.monotonic() + START
    while len(list(tmp_path.iterdir())) == 1 and time.monotonic() < deadline:
        time.sleep(0.001)
    process.kill()
    end(process)
    assert process.exitcode == -signal.SIGKILL
    assert files(out) == before
    assert pairform.verify(out).ok


def test_a_terminated_conversion_leaves_no_target(
    server: Any, pair: dict[str, Any], whole: dict[str, bytes], tmp_path: Path
) -> None:
    process = start(server, pair, tmp_path / "out")
    process.terminate()
    end(process)
    assert process.exitcode == -signal.SIGTERM
    assert not (tmp_path / "out").exists()
    pairform.convert(**pair, out=tmp_path / "out")
    assert files(tmp_path / "out") == whole
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_interrupted_conversion_cleans_up_itself(pair: dict[str, Any], tmp_path: Path) -> None:
    arguments = {name: str(value) for name, value in pair.items()} | {"out": str(tmp_path / "new" / "out")}
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # which tests run in the background ignore
    script = f"{heed}; import pairform; pairform.convert(**{arguments!r})"
    process = subprocess.Popen(
        [sys.executable, "-c", script], stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    deadline = time.monotonic() + 2 * START
    while not list(tmp_path.glob("new/.*/*.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=START)
    assert process.returncode == -signal.SIGINT
    assert b"KeyboardInterrupt" in errors
    assert not any(tmp_path.iterdir())
