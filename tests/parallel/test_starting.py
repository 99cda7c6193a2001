"""Processes from torchrun's environment, and one voice when one of them fails or dies."""

import os
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed

from pairform.assemblies.modeling.processes import PeerError
from pairform.training.parallel import TIMEOUT, VARIABLES, computing, start
from tests.broken.damage import refused
from tests.forked import ended, fork, free_port

SOON = timedelta(seconds=20)
"""In which a process notices that another is gone."""


def began(*arguments: Any, **options: Any) -> Any:
    with start(*arguments, device="cpu", **options) as world:
        return world


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_one_process_needs_no_group() -> None:
    with start(device="cpu") as world:
        assert (world.rank, world.size, world.mesh, world.first) == (0, 1, None, True)
        assert not distributed.is_initialized()
        assert world.sum(torch.tensor(3)) == 3
        world.barrier()
        with world.together("a block"), computing("mixed", world):
            assert torch.get_autocast_dtype("cpu") == torch.bfloat16
            assert torch.is_autocast_enabled("cpu")
        with computing("bfloat16", world):
            assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize(
    ("environment", "word"),
    [
        ({"RANK": "0"}, "WORLD_SIZE"),
        ({"WORLD_SIZE": "2"}, "RANK"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "MASTER_ADDR"),
        ({"RANK": "2", "WORLD_SIZE": "2", "MASTER_ADDR": "x", "MASTER_PORT": "1"}, "less than WORLD_SIZE"),
        ({"RANK": "-1", "WORLD_SIZE": "2", "MASTER_ADDR": "x", "MASTER_PORT": "1"}, "a whole number"),
        ({"RANK": "²", "WORLD_SIZE": "2", "MASTER_ADDR": "x", "MASTER_PORT": "1"}, "a whole number"),
    ],
)
def test_a_broken_environment_is_refused(environment: dict[str, str], word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    refused(began, "environment", word)


@pytest.mark.parametrize(
    ("shape", "word"), [((2, 1), "--nproc-per-node 2"), (("all", 2), "replicate"), (("all", 0), "replicate")]
)
def test_processes_that_do_not_fit_the_mesh_are_refused(shape: Any, word: str) -> None:
    refused(lambda: began(*shape), word)


def test_another_device_is_refused() -> None:
    refused(lambda: started_on("tpu"), "tpu")


def started_on(device: str) -> None:
    with start(device=device):
        pass


def fail(rank: int, folder: Path, number: int) -> None:
    """First process 1 raises an error, then both do. Then process 0 is killed, which has the store, as without torchrun."""
    try:
        with start(device="cpu", timeout=SOON) as world:
            if rank == 0 and number == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            if number == 1 or (rank == 1 and number == 0):
                raise KeyError(f"of process {rank}")
            for _ in range(2):
                world.sum(torch.ones(1))
    except Exception as error:
        (folder / str(rank)).write_text(f"{type(error).__name__}: {error}")


def said_by_two(folder: Path, number: int) -> dict[str, str]:
    """The errors of two processes that fail, by rank."""
    folder.mkdir()
    torchs: Any = distributed  # which does not export it to type checkers
    store = torchs.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    of_torchrun = number < 2
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_USE_AGENT_STORE": str(of_torchrun)}
    shared["MASTER_PORT"] = str(store.port if of_torchrun else free_port())
    processes = [fork(fail, rank, folder, number, RANK=str(rank), LOCAL_RANK=str(rank), **shared) for rank in range(2)]
    for process in processes:
        ended(process)
    return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.mark.skipif(not distributed.is_available(), reason="torch without torch.distributed")
def test_one_process_speaks(tmp_path: Path) -> None:
    one, both, killed = (said_by_two(tmp_path / str(number), number) for number in range(3))
    assert one.pop("1") == "KeyError: 'of process 1'"
    assert one.pop("0").startswith(PeerError.__name__)
    assert sorted(said.partition(":")[0] for said in both.values()) == ["KeyError", PeerError.__name__]
    assert killed.pop("1").startswith("PairformError: process 1: found a process that died or stopped answering")
    assert one == killed == {}
    assert TIMEOUT.seconds <= 60
