"""Writing a large file in order, past the page cache.

A page cache that fills with what is only written costs more than the copy itself: it drives out what others read, and on a
virtual machine each page is first to be had from the host. Whole blocks go to the disk directly instead, one being written
while the next one fills. Where a file system cannot, and for what is left after the last whole block, plain writes do.
"""

import errno
import fcntl
import mmap
import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Self

BUFFER = 1 << 25
"""Bytes that are written at a time."""
BLOCK = 1 << 12
"""What direct writes must be a multiple of, in memory and in the file."""


class DirectFile:
    """A new file. Fill `room()`, say with `advance` how much of it was filled, and again."""

    def __init__(self, file: Path) -> None:
        self._descriptor, self._direct = _open(file)
        self._buffers = [mmap.mmap(-1, BUFFER), mmap.mmap(-1, BUFFER)]
        self._filled = 0
        self._writer = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._flush()
                self._wait()
        finally:
            self._writer.shutdown()
            os.close(self._descriptor)

    def room(self) -> memoryview:
        """The part of the buffer that is still free; never empty."""
        return memoryview(self._buffers[0])[self._filled :]

    def advance(self, count: int) -> None:
        """The first `count` bytes of `room()` are now the next bytes of the file."""
        self._filled += count
        if self._filled == BUFFER:
            self._flush()

    def append(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        while view:
            room = self.room()
            count = min(len(room), len(view))
            room[:count] = view[:count]
            self.advance(count)
            view = view[count:]

    def _flush(self) -> None:
        self._wait()
        self._writing = self._writer.submit(self._write, memoryview(self._buffers[0])[: self._filled])
        self._buffers.reverse()
        self._filled = 0

    def _wait(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _write(self, data: memoryview) -> None:
        while data:
            whole = len(data) - len(data) % BLOCK
            if self._direct and whole == 0:
                self._buffered()
            try:
                data = data[os.write(self._descriptor, data[: whole if self._direct else None]) :]
            except OSError as error:
                if not self._direct or error.errno != errno.EINVAL:
                    raise
                self._buffered()

    def _buffered(self) -> None:
        """Back to plain writes."""
        fcntl.fcntl(self._descriptor, fcntl.F_SETFL, fcntl.fcntl(self._descriptor, fcntl.F_GETFL) & ~os.O_DIRECT)
        self._direct = False


def _open(file: Path) -> tuple[int, bool]:
    """A descriptor of a new file, and whether its writes are direct."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    if hasattr(os, "O_DIRECT"):
        try:
            return os.open(file, flags | os.O_DIRECT, 0o666), True
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            file.unlink(missing_ok=True)
    return os.open(file, flags, 0o666), False
