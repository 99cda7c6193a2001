"""Whether a file is still the one whose header was read: trainers replace checkpoints while others read them."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from pairform.registry import CheckpointError, Problem, open_regular


@dataclass(frozen=True)
class Identity:
    """What changes when a file is replaced or rewritten. `modified` is in nanoseconds."""

    device: int
    inode: int
    size: int
    modified: int

    @classmethod
    def of(cls, found: os.stat_result) -> "Identity":
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


@contextlib.contextmanager
def open_same(file: Path, identity: Identity) -> Iterator[BufferedReader]:
    """`file` open for reading; a `CheckpointError` where it is another than `identity`, before or after it was read."""
    with open_regular(file) as raw:
        require_same(file, identity, Identity.of(os.fstat(raw.fileno())))
        yield raw
        require_same(file, identity, Identity.of(os.fstat(raw.fileno())))


def require_same(file: Path, wanted: Identity, found: Identity) -> None:
    if found != wanted:
        expected = "the file whose header was read"
        remedy = "Start again when no other program writes this folder, or read a copy of it."
        raise CheckpointError(Problem(str(file), "a file that was replaced or changed while it was read", expected, remedy))
