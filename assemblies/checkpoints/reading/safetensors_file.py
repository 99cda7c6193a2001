"""One safetensors file: opened once, its header checked, its tensors read in pieces."""

import contextlib
import os
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pairform.assemblies.checkpoints.reading.unsupported import quantised_by, quantised_tensor
from pairform.registry import CheckpointError, Problem, open_regular, parse_json
from pairform.registry.files import DOCUMENT_BYTES

PIECE_BYTES = 1 << 20
"""Bytes of a tensor that are read at a time: they stay in the processor's cache while they are checked and summed."""
POINTER = b"version https://git-lfs.github.com/spec/"
"""The first bytes of the text file that Git LFS puts in a file's place until it fetches the file."""
DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
"""Of weights."""
OTHER_DTYPES: dict[str, torch.dtype] = {
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""Of tensors that are no weights, such as the masks in old files of GPT-2."""
DTYPE_NAMES: Mapping[torch.dtype, str] = {dtype: name for name, dtype in (DTYPES | OTHER_DTYPES).items()}


class SafetensorsFile:
    """A safetensors file, open for reading until nothing refers to it.

    Trainers replace checkpoints while others read them. Every read therefore goes through the one descriptor whose header was
    checked, and is an error if the file at `path` is no longer that file, or no longer as it was.
    """

    def __init__(self, path: Path) -> None:
        """Raises: CheckpointError: not a regular file, not a whole safetensors file, or one of quantised weights."""
        self.path = path
        with readable(path):
            raw = open_regular(path)
            weakref.finalize(self, raw.close)
            self._descriptor = raw.fileno()
            self._version = version(os.fstat(self._descriptor))
            start = raw.read(len(POINTER))
            if start == POINTER:
                remedy = "Fetch the file itself: git lfs pull, or huggingface_hub.snapshot_download."
                raise CheckpointError(Problem(str(path), "a Git LFS pointer", "the weights that it stands for", remedy))
            # the format: 8 bytes with the header's length, the header, the data
            length = int.from_bytes(start[:8], "little")
            if length > DOCUMENT_BYTES:
                raise EOFError(f"a header of {length:,} bytes, more than the limit of {DOCUMENT_BYTES:,}")
            raw.seek(8)
            header = parse_json(raw.read(length).decode("utf-8"))
            # it opens the path again, so that the check below also tells whether both are one file
            with safe_open(path, "pt") as opened:  # checks the entries against the file's size
                names = sorted(opened.keys())
            self.check_unchanged()
        entries = {name: header[name] for name in names}
        if any(entry["dtype"] not in DTYPES for entry in entries.values()) and (found := quantised_by(entries)) is not None:
            raise CheckpointError(quantised_tensor(f"{path}: {found[0]}", found[1]))
        self.tensors = {name: self._tensor(name, entry, 8 + length) for name, entry in entries.items()}

    def _tensor(self, name: str, entry: Mapping[str, Any], base: int) -> "StoredTensor":
        dtype = (DTYPES | OTHER_DTYPES).get(entry["dtype"])
        if dtype is None:
            raise CheckpointError(odd_dtype(f"{self.path}: {name}", entry["dtype"]))
        return StoredTensor(name, dtype, tuple(entry["shape"]), self, base + entry["data_offsets"][0])

    @cached_property
    def _mapped(self) -> Any:
        """The file as safetensors maps it, once for all tensors."""
        return safe_open(self.path, "pt")

    def mapped_tensor(self, name: str) -> Tensor:
        """A tensor on the CPU that stays mapped to the file."""
        with readable(self.path):
            tensor: Tensor = self._mapped.get_tensor(name)
            self.check_unchanged()
        return tensor

    def read_into(self, buffer: memoryview, begin: int) -> None:
        """Fill `buffer` with the file's bytes from offset `begin` on."""
        while buffer:
            with readable(self.path):
                # may read less than requested
                count = os.preadv(self._descriptor, [buffer], begin)
            if count == 0:
                found = f"its end at byte {begin}"
                raise CheckpointError(Problem(str(self.path), found, "the length it had when it was opened"))
            buffer, begin = buffer[count:], begin + count

    def check_unchanged(self) -> None:
        """A `CheckpointError` if the file was replaced or rewritten since it was opened."""
        if any(version(found) != self._version for found in (os.fstat(self._descriptor), self.path.stat())):
            remedy = "Start again when no other program writes this folder, or read a copy of it."
            found = "a file that was replaced or changed while it was read"
            raise CheckpointError(Problem(str(self.path), found, "the file whose header was read", remedy))


@dataclass(frozen=True)
class CheckpointTensor(ABC):
    """A tensor of a checkpoint. `name` is its name in the checkpoint's files."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize

    @property
    def path(self) -> Path | None:
        """The file that holds it; None for one in memory."""
        return None

    @property
    @abstractmethod
    def place(self) -> str:
        """The file and the tensor's name, for errors."""

    @abstractmethod
    def read(self) -> Tensor:
        """The whole tensor, on the CPU. A stored one stays mapped to its file."""

    @abstractmethod
    def pieces(self, rows: int | None = None, stop: int | None = None, start: int = 0) -> Iterator[Tensor]:
        """The rows from `start` up to `stop`, `rows` at a time; by default all of them, in pieces of a convenient size."""


@dataclass(frozen=True)
class StoredTensor(CheckpointTensor):
    """A tensor in a safetensors file, from byte `begin` on, or a part of one, after the first `skipped` of its elements."""

    file: SafetensorsFile
    begin: int
    skipped: int = 0

    @property
    def path(self) -> Path:
        return self.file.path

    @property
    def place(self) -> str:
        return f"{self.file.path}: {self.name}"

    def part(self, start: int, shape: tuple[int, ...]) -> "StoredTensor":
        """The tensor of this shape from element `start` on."""
        begin = self.begin + start * self.dtype.itemsize
        return replace(self, shape=shape, begin=begin, skipped=self.skipped + start)

    def read(self) -> Tensor:
        whole = self.file.mapped_tensor(self.name)
        return whole.reshape(-1)[self.skipped : self.skipped + prod(self.shape)].view(self.shape)

    def pieces(self, rows: int | None = None, stop: int | None = None, start: int = 0) -> Iterator[Tensor]:
        """As above, by default about `PIECE_BYTES` at a time. A tensor without elements has no pieces.

        Each piece is copied into memory of its own: if a mapped file shrinks while it is read, the process is killed.
        """
        if self.nbytes == 0:
            return
        count, *rest = self.shape or (1,)  # a scalar is one row
        stop = count if stop is None else stop
        row_bytes = prod(rest) * self.dtype.itemsize
        rows = rows or max(PIECE_BYTES // max(row_bytes, 1), 1)
        with readable(self.file.path):
            self.file.check_unchanged()
            for begin in range(start, stop, rows):
                piece = torch.empty((min(rows, stop - begin), *rest), dtype=self.dtype)
                self.file.read_into(tensor_bytes(piece), self.begin + begin * row_bytes)
                yield piece
            self.file.check_unchanged()


def odd_dtype(place: str, dtype: str) -> Problem:
    """A weight that is no floating-point tensor."""
    remedy = "Weights in other dtypes are usually quantised: use the checkpoint that is not."
    return Problem(place, f"the dtype {dtype}", f"one of {', '.join(DTYPES)}", remedy)


def tensor_bytes(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous CPU tensor, little-endian as the machine's."""
    return tensor.view(-1).view(torch.uint8).numpy().data


def version(found: os.stat_result) -> tuple[int, ...]:
    """What changes when a file is replaced or rewritten."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


@contextlib.contextmanager
def readable(file: Path) -> Iterator[None]:
    """Report what goes wrong while a safetensors file is read as a `CheckpointError` that names the file."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(Problem(str(file), error.strerror or str(error), "a safetensors file")) from None
    except (SafetensorError, EOFError, ValueError, RuntimeError) as error:  # RuntimeError: no memory to map it
        remedy = "The file is truncated or damaged: fetch or write it again."
        raise CheckpointError(Problem(str(file), f"{error}", "a whole safetensors file", remedy)) from None
