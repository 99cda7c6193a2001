"""The processes of a run: their group and mesh from torchrun's environment, sums over them, and one voice for errors."""

import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from typing import Literal

import torch
from torch import Tensor, distributed
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from pairform.assemblies.modeling.processes import PeerError, patient_group, together
from pairform.assemblies.modeling.sharding import Precision, shard
from pairform.registry import InputError, PairformError, Problem, shorten

__all__ = ["PeerError", "World", "computing", "one_voice", "shard", "start"]

TIMEOUT = timedelta(seconds=60)
"""How long a process waits for the others in a step before it gives up."""
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun sets."""
FAILURE = "pairform/failure"
"""Begins the key under which processes that fail count themselves in the group's store. The number of the group follows, since
torchrun's store outlives groups."""
_groups = count()


@dataclass(frozen=True)
class World:
    """The processes of a run, as one of them sees them.

    rank:   the number of this process, from 0.
    size:   the number of processes.
    device: where this process computes.
    mesh:   the processes as `replicate` rows of `shard` columns, or as one dimension; None if there is only one process.
    """

    rank: int
    size: int
    device: torch.device
    mesh: DeviceMesh | None = None

    @property
    def first(self) -> bool:
        """Whether this process writes what only one may write: files beside the checkpoints, and output."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, on the device: `tensor` itself if there is one process."""
        if self.mesh is None:
            return tensor
        total = tensor.detach().clone().to(self.device)
        distributed.all_reduce(total)
        return total

    def together(self, what: str) -> AbstractContextManager[None]:
        """A block whose error in one process is raised in all: a `PeerError` where there is no other.

        The others wait for hours if they must, so that one process may read or write large files meanwhile.
        """
        return nullcontext() if self.mesh is None else together(what)

    def barrier(self) -> None:
        """Wait until all processes are here."""
        with self.together("barrier"):
            pass


ALONE = World(0, 1, torch.device("cpu"))
"""One process, on a CPU."""


@contextmanager
def start(
    shard: int | Literal["all"] = "all", replicate: int = 1, *, device: str | None = None, timeout: timedelta = TIMEOUT
) -> Iterator[World]:
    """The processes that torchrun started, connected; or this process alone if it was started without torchrun.

    Args:
        shard: over how many processes each copy of a model is sharded; "all" of a copy's.
        replicate: the number of copies.
        device: "cpu" or "cuda"; by default a CUDA device for each process if there are enough of them, else the CPU.
        timeout: how long a process waits for the others in a step.

    Raises:
        InputError: the environment is incomplete, or the number of processes does not fit `shard` and `replicate`.
        PeerError: at the end of the block, if another process failed first: that one reports the error.
    """
    rank, size, local = environment()
    with one_voice(local):
        columns = check_shape(size, shard, replicate)
        place = device_of(local, device)
    if size == 1:
        yield World(0, 1, place)
        return
    failures = f"{FAILURE}/{next(_groups)}"
    backend = "gloo" if place.type == "cpu" else "cpu:gloo,cuda:nccl"
    distributed.init_process_group(backend, timeout=timeout, device_id=place if place.type == "cuda" else None)
    try:
        patient_group()
        shape, names = ((columns,), ("shard",)) if replicate == 1 else ((replicate, columns), ("replicate", "shard"))
        yield World(rank, size, place, init_device_mesh(place.type, shape, mesh_dim_names=names))
    except BaseException as error:
        reported = first_error(rank, error, failures)
        if place.type == "cpu":  # NCCL would wait for processes that are gone
            distributed.destroy_process_group()
        if reported is error:
            raise
        raise reported from error
    else:
        distributed.destroy_process_group()


@contextmanager
def one_voice(local: int) -> Iterator[None]:
    """Before processes are connected, all of a machine find the same errors: `PeerError`s in all but the first of them."""
    try:
        yield
    except Exception as error:
        if local == 0:
            raise
        problems = (
            error.problems if isinstance(error, PairformError) else Problem("process 0", type(error).__name__, "no error")
        )
        raise PeerError(problems) from error


def environment() -> tuple[int, int, int]:
    """Rank, number of processes and rank on this machine, as torchrun sets them; 0, 1, 0 without it."""
    if "RANK" not in os.environ and "WORLD_SIZE" not in os.environ:
        return 0, 1, 0
    missing = [name for name in VARIABLES if name not in os.environ and name != "LOCAL_RANK"]
    if missing:
        found = f"no {missing[0]} beside {'RANK' if 'RANK' in os.environ else 'WORLD_SIZE'}"
        raise InputError(Problem("environment", found, f"{', '.join(VARIABLES)} or none of them", "torchrun sets them."))
    numbers = []
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        text = os.environ.get(name, os.environ["RANK"])
        if not (text.isascii() and text.isdigit() and len(text) < 10):
            raise InputError(Problem(f"environment: {name}", shorten(text), "a whole number", "torchrun sets it."))
        numbers.append(int(text))
    rank, size, local = numbers
    if rank >= size:
        raise InputError(Problem("environment: RANK", str(rank), f"less than WORLD_SIZE, {size}", "torchrun sets both."))
    return rank, size, local


def check_shape(size: int, shard: int | Literal["all"], replicate: int) -> int:
    """Over how many processes each copy is sharded; an `InputError` if the processes cannot be divided so."""
    if replicate < 1 or size % replicate:
        found = f"{replicate} copies for {size} process{'es' * (size > 1)}"
        raise InputError(Problem("parallel.replicate", found, "a number that divides that of the processes"))
    columns = size // replicate
    if shard not in ("all", columns):
        found = f"{shard} processes for each copy, with {size} process{'es' * (size > 1)} and replicate {replicate}"
        remedy = f"Start {int(shard) * replicate} processes: torchrun --nproc-per-node {int(shard) * replicate}."
        raise InputError(Problem("parallel.shard", found, f'{columns} or "all"', remedy))
    return columns


def device_of(local: int, device: str | None) -> torch.device:
    """The device of the process with this number on its machine."""
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        return torch.device("cpu")
    if device != "cuda":
        raise InputError(Problem("device", shorten(device), "cpu or cuda"))
    processes = max(local + 1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    if processes > torch.cuda.device_count():
        found = f"{torch.cuda.device_count()} CUDA devices for {processes} process{'es' * (processes > 1)} of this machine"
        raise InputError(Problem("device", found, "one for each process", "Start fewer with torchrun --nproc-per-node."))
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


COUNTING = 1.0
"""Seconds that process 0 waits for the failures of others."""


def first_error(rank: int, error: BaseException, failures: str) -> BaseException:
    """`error`, if this process is the first that fails; else a `PeerError`, since the first one reports its own.

    The group's store counts the failures. Without torchrun it is in process 0: if that is gone, process 1 reports.
    """
    if isinstance(error, PeerError) or not isinstance(error, Exception):
        return error
    lost = not isinstance(error, PairformError) and isinstance(error, RuntimeError) and is_about_peers(error)
    try:
        store = distributed.distributed_c10d._get_default_store()
        first = store.add(failures, 1) == 1
        # the store ends with process 0: others that fail at the same time count their failures before
        end = time.monotonic() + COUNTING
        while rank == 0 and store.add(failures, 0) < distributed.get_world_size() and time.monotonic() < end:
            time.sleep(0.02)
    except Exception:
        first = rank <= 1 or not lost
    if first and not lost:
        return error
    found = str(error).partition("\n")[0]
    if not lost:
        return PeerError(Problem(f"process {rank}", found, "no error in any process"))
    problem = Problem(f"process {rank}", f"a process that died or stopped answering ({found})", "all of them")
    return PairformError(problem) if first else PeerError(problem)


def is_about_peers(error: RuntimeError) -> bool:
    """Whether torch raised this for a lost connection or an operation that timed out."""
    words = ("connection", "timed out", "timeout", "peer", "nccl", "gloo")
    return isinstance(error, distributed.DistError) or any(word in str(error).lower() for word in words)


def computing(precision: Precision, world: World) -> AbstractContextManager[None]:
    """The context of a forward pass in this precision: autocast for "mixed" in one process; a sharded model needs none."""
    if precision != "mixed" or world.mesh is not None:
        return nullcontext()
    return torch.autocast(world.device.type, torch.bfloat16)
