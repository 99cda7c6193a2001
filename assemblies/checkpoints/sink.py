"""Moving the bytes of tensors into a file, a piece at a time."""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

import torch
from torch import Tensor

from pairform.assemblies.checkpoints.stored import BUFFER, StoredTensor, readable
from pairform.registry import CheckpointError, Problem

IN_KERNEL = 1 << 28
"""Bytes that the kernel is asked to move at a time."""
Progress = Callable[[int, int], object]
"""Called with the number of bytes just moved, and how many there are to move in all."""


def silent(moved: int, whole: int) -> None:
    """No progress shown."""


class Content(Protocol):
    """What a tensor's bytes come from."""

    def write(self, sink: "Sink") -> None: ...


class Sink:
    """Takes the bytes of one file in order."""

    def __init__(self, file: Path, moved: Callable[[int], object]) -> None:
        self._file = file
        self._descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        self._moved = moved
        self._in_kernel = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def send(self, data: bytes | memoryview, *, counted: bool = True) -> None:
        view = memoryview(data)
        while view:
            written = os.write(self._descriptor, view[:BUFFER])
            view = view[written:]
            if counted:
                self._moved(written)

    def send_tensor(self, tensor: Tensor) -> None:
        """The elements of a CPU tensor, little-endian as the machine's."""
        flat = tensor.contiguous().reshape(-1)
        step = max(BUFFER // flat.element_size(), 1)
        for begin in range(0, flat.numel(), step):
            self.send(flat[begin : begin + step].view(torch.uint8).numpy().data)

    def copy(self, file: Path, begin: int, end: int) -> None:
        """Bytes `begin` to `end` of another file, moved by the kernel where it can."""
        with readable(file):
            source = os.open(file, os.O_RDONLY)
        try:
            while begin < end:
                moved = self._move(file, source, begin, end - begin)
                if moved == 0:
                    found = f"its end at byte {begin}"
                    raise CheckpointError(Problem(str(file), found, "the length it had when it was opened"))
                begin += moved
        finally:
            os.close(source)

    def _move(self, file: Path, source: int, begin: int, count: int) -> int:
        if self._in_kernel and hasattr(os, "copy_file_range"):
            try:
                moved = os.copy_file_range(source, self._descriptor, min(count, IN_KERNEL), offset_src=begin)
                self._moved(moved)
                return moved
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise
                self._in_kernel = False  # another file system, or one that cannot
        with readable(file):
            data = os.pread(source, min(count, BUFFER), begin)
        self.send(data)
        return len(data)


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

    def write(self, sink: Sink) -> None:
        sink.copy(self.stored.file, self.stored.begin, self.stored.end)
