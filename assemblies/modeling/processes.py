"""Agreement between the processes of a group: an error of one of them is raised in all, and rank 0 may take its time."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed

from pairform.registry import InputError, PairformError, Problem

PATIENCE = timedelta(hours=2)
"""How long processes wait for one that reads or writes files. A process that dies is noticed at once."""
_patient: dict[int, Any] = {}


class PeerError(PairformError):
    """Another process failed. It reports the error itself, so that one message is printed and not one a process."""


def grouped() -> bool:
    """Whether this process belongs to a group of several."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def patient_group() -> Any:
    """All processes as a group with a long timeout, for steps that wait for a disk. Its tensors are on the CPU.

    Every process must make the first call at the same point, since that creates the group.
    """
    whole = distributed.group.WORLD
    if id(whole) not in _patient:
        _patient.clear()  # groups of an earlier `init_process_group`
        _patient[id(whole)] = distributed.new_group(backend="gloo", timeout=PATIENCE)
    return _patient[id(whole)]


@contextmanager
def together(what: str) -> Iterator[None]:
    """Run the block in every process. If it raises in some, all raise: they their own error, the others a `PeerError`.

    what: what the block does, for the error. The block must contain no collective operation that all processes need.
    """
    error: BaseException | None = None
    try:
        yield
    except Exception as raised:
        error = raised
    failed = first_failed(error is not None)
    if error is not None:
        raise error
    if failed is not None:
        raise PeerError(Problem(what, f"an error in process {failed}", "no error in any process"))


def first_failed(failed: bool) -> int | None:
    """The lowest rank for which `failed` is true, in every process."""
    if not grouped():
        return None
    size = distributed.get_world_size()
    number = torch.tensor(distributed.get_rank() if failed else size)
    distributed.all_reduce(number, distributed.ReduceOp.MIN, group=patient_group())
    return None if int(number) == size else int(number)


def said_by_first(value: int) -> int:
    """The value that rank 0 passed."""
    number = torch.tensor(value)
    distributed.broadcast(number, 0, group=patient_group())
    return int(number)


def check_equal(name: str, values: tuple[int, ...], mesh: Any) -> None:
    """Raise `InputError` in every process unless all of them passed the same `values`."""
    numbers = torch.tensor([*values, *(-value for value in values)], device=mesh.device_type)
    largest = reduced(numbers, mesh, distributed.ReduceOp.MAX)
    if not torch.equal(largest[: len(values)], -largest[len(values) :]):
        raise InputError(Problem(name, "another value in another process", "the same in every process of a sharded model"))


def all_true(flag: Tensor, mesh: Any) -> Tensor:
    """Whether `flag` is true in every process that holds a slice of the same weights."""
    return reduced(flag.int(), mesh, distributed.ReduceOp.MIN).bool()


def reduced(numbers: Tensor, mesh: Any, operation: Any) -> Tensor:
    """A reduction over the processes that hold slices of the same weights: the last dimension of the mesh."""
    distributed.all_reduce(numbers, operation, group=mesh.get_group(mesh.ndim - 1))
    return numbers


Stops = Callable[[Tensor], Tensor]
"""From whether this process has finished to whether all have."""
