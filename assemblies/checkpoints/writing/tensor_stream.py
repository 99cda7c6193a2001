"""Moving the bytes of tensors into a file, a piece at a time."""

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pairform.assemblies.checkpoints.reading.header import readable
from pairform.assemblies.checkpoints.reading.identity import open_same
from pairform.assemblies.checkpoints.reading.stored import StoredTensor
from pairform.assemblies.checkpoints.writing.checksum import PIECE, Checksum
from pairform.assemblies.checkpoints.writing.direct_io import DirectFile
from pairform.registry import CheckpointError, Problem

Progress = Callable[[int, int], object]
"""Called with the number of bytes just moved, and how many there are to move in all."""


def silent(moved: int, whole: int) -> None:
    """No progress shown."""


class Content(Protocol):
    """What a tensor's bytes come from."""

    def write(self, sink: "Sink") -> None: ...


class Sink:
    """Sends the bytes of tensors to a file and sums them as they pass."""

    def __init__(self, file: DirectFile, moved: Callable[[int], object]) -> None:
        self._file = file
        self._moved = moved
        self._sum = Checksum()

    def checksum(self) -> str:
        """Of what was sent since this was last asked for."""
        found, self._sum = self._sum, Checksum()
        return str(found)

    def send_tensor(self, tensor: Tensor) -> None:
        """The elements of a CPU tensor, little-endian as the machine's."""
        flat = tensor.contiguous().reshape(-1)
        step = max(PIECE // flat.element_size(), 1)
        for begin in range(0, flat.numel(), step):
            data = flat[begin : begin + step].view(torch.uint8).numpy().data
            self._file.append(data)
            self._passed(data)

    def copy(self, stored: StoredTensor, check: Callable[[Tensor, str], object] | None = None) -> None:
        """The bytes of a stored tensor; `check` is called with each piece of it, and the tensor's place, before it is sent."""
        begin, size = stored.begin, stored.dtype.itemsize
        with contextlib.ExitStack() as opened:
            with readable(stored.file):
                source = opened.enter_context(open_same(stored.file, stored.identity))
            while begin < stored.end:
                room = self._file.room()[: min(stored.end - begin, PIECE)]
                with readable(stored.file):
                    read = os.preadv(source.fileno(), [room], begin)
                read -= read % size  # whole elements: the file's beginning and its buffer are multiples of the largest
                if read == 0:
                    found = f"its end at byte {begin}"
                    raise CheckpointError(Problem(str(stored.file), found, "the length it had when it was opened"))
                if check is not None:
                    check(torch.frombuffer(room, dtype=stored.dtype, count=read // size), stored.place)
                self._passed(room[:read])
                self._file.advance(read)
                begin += read

    def _passed(self, data: memoryview) -> None:
        self._sum.add(data)
        self._moved(len(data))


@dataclass(frozen=True)
class TensorContent:
    """A tensor in memory."""

    tensor: Tensor

    def write(self, sink: Sink) -> None:
        sink.send_tensor(self.tensor.detach().cpu())


@dataclass(frozen=True)
class CopiedContent:
    """A stored tensor's bytes, unchanged."""

    stored: StoredTensor
    check: Callable[[Tensor, str], object] | None = None

    def write(self, sink: Sink) -> None:
        sink.copy(self.stored, self.check)
