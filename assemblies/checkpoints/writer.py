"""Writing safetensors shards as a stream: the header first, then each tensor's bytes, never a whole file in memory."""

import errno
import json
import os
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Protocol

import torch
from huggingface_hub import split_state_dict_into_shards_factory
from torch import Tensor

from pairform.assemblies.checkpoints.stored import DTYPE_NAMES, INDEX, StoredTensor, readable, tensors_in
from pairform.registry import CheckpointError, OutputError, Problem, shorten

BUFFER = 1 << 23
"""Bytes moved at a time."""
PATTERN = "model{suffix}.safetensors"
UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
Progress = Callable[[int], object]
"""Called with the number of bytes just written."""


class Content(Protocol):
    """What a tensor's bytes come from."""

    def write(self, sink: "Sink") -> None: ...


@dataclass(frozen=True)
class Entry:
    """A tensor to be written under `name`."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    content: Content

    @property
    def size(self) -> int:
        return prod(self.shape) * self.dtype.itemsize


class Sink:
    """Takes the bytes of one file in order."""

    def __init__(self, file: Path, progress: Progress) -> None:
        self._file = file
        self._descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        self._progress = progress
        self._in_kernel = True

    def close(self) -> None:
        os.close(self._descriptor)

    def send(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        while view:
            written = os.write(self._descriptor, view[:BUFFER])
            self._progress(written)
            view = view[written:]

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
                moved = self._move(file, source, begin, min(end - begin, BUFFER))
                if moved == 0:
                    found = f"its end at byte {begin}"
                    raise CheckpointError(Problem(str(file), found, "the length it had when it was opened"))
                begin += moved
        finally:
            os.close(source)

    def _move(self, file: Path, source: int, begin: int, count: int) -> int:
        if self._in_kernel and hasattr(os, "copy_file_range"):
            try:
                moved = os.copy_file_range(source, self._descriptor, count, offset_src=begin)
                self._progress(moved)
                return moved
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise
                self._in_kernel = False  # another file system, or one that cannot
        with readable(file):
            data = os.pread(source, count, begin)
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


def write_tensors(
    folder: Path, entries: Sequence[Entry], *, max_shard_size: int | str = "5GB", progress: Progress = lambda _: None
) -> dict[str, str]:
    """Write `entries` as shards, and an index where there is more than one. Returns each tensor's checksum by name.

    The layout is that of safetensors' own writer, so equal tensors give equal files. Checksums are read back from the
    written files while the next one is being written.
    """
    split = split_state_dict_into_shards_factory(
        {entry.name: entry for entry in entries},
        get_storage_size=lambda entry: entry.size,
        max_shard_size=shard_bytes(max_shard_size),
        filename_pattern=PATTERN,
    )
    by_name = {entry.name: entry for entry in entries}
    with ThreadPoolExecutor(1) as checker:
        reading: list[Future[dict[str, str]]] = []
        for filename, names in split.filename_to_tensors.items():
            write_shard(folder / filename, [by_name[name] for name in names], progress)
            reading.append(checker.submit(checksums, folder / filename))
        found = {name: checksum for future in reading for name, checksum in future.result().items()}
    if split.is_sharded:
        parameters = sum(prod(entry.shape) for entry in entries)
        metadata = {"total_parameters": parameters, "total_size": sum(entry.size for entry in entries)}
        write_json(folder / INDEX, {"metadata": metadata, "weight_map": split.tensor_to_filename}, sort_keys=True)
    return found


def shard_bytes(size: int | str) -> int:
    """A shard's size as a number of bytes: 5_000_000_000, "5GB", "500 MB"."""
    match = re.fullmatch(r"(\d{1,15}(?:\.\d+)?) *([KMGT]B|)", str(size).strip().upper())
    found = 0 if match is None else int(float(match[1]) * UNITS[match[2]])
    if not isinstance(size, int | str) or found < 1:
        raise OutputError(Problem("max_shard_size", shorten(size), "a number of bytes above 0, or a size such as 5GB"))
    return found


def write_shard(file: Path, entries: Sequence[Entry], progress: Progress) -> None:
    """One safetensors file; larger dtypes first, then by name, as the library does."""
    entries = sorted(entries, key=lambda entry: (-entry.dtype.itemsize, entry.name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    begin = 0
    for entry in entries:
        offsets = [begin, begin + entry.size]
        header[entry.name] = {"dtype": DTYPE_NAMES[entry.dtype], "shape": list(entry.shape), "data_offsets": offsets}
        begin = offsets[1]
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    sink = Sink(file, lambda _: None)
    try:
        sink.send(len(text).to_bytes(8, "little") + text)
        sink._progress = progress
        for entry in entries:
            entry.content.write(sink)
    finally:
        sink.close()


def checksums(file: Path) -> dict[str, str]:
    """The CRC-32 of each tensor in a file, which safetensors checks as it opens."""
    found = {}
    buffer = bytearray(BUFFER)
    with readable(file), file.open("rb", buffering=0) as raw:
        for name, tensor in tensors_in(file).items():
            raw.seek(tensor.begin)
            found[name] = crc(pieces(raw, tensor.end - tensor.begin, memoryview(buffer)))
    return found


def pieces(raw: Any, count: int, buffer: memoryview) -> Iterator[memoryview]:
    while count:
        read = raw.readinto(buffer[: min(count, len(buffer))])
        if not read:
            return
        yield buffer[:read]
        count -= read


def crc(parts: Iterator[memoryview]) -> str:
    value = 0
    for part in parts:
        value = zlib.crc32(part, value)
    return f"{value:08x}"


def write_json(file: Path, document: Mapping[str, Any], *, sort_keys: bool = False) -> None:
    file.write_text(json.dumps(document, indent=2, sort_keys=sort_keys, ensure_ascii=False) + "\n", "utf-8")
