"""Writing safetensors shards as a stream: the header first, then each tensor piece by piece, never a whole file in memory."""

import json
import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_state_dict_into_shards_factory
from torch import Tensor

from pairform.assemblies.checkpoints.reading.safetensors_file import (
    DTYPE_NAMES,
    PIECE_BYTES,
    CheckpointTensor,
    SafetensorsFile,
    tensor_bytes,
)
from pairform.assemblies.checkpoints.reading.weights import INDEX
from pairform.assemblies.checkpoints.writing.direct_io import DirectFile
from pairform.registry import OutputError, Problem, shorten

PATTERN = "model{suffix}.safetensors"
UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
Progress = Callable[[int, int], object]
"""Called with the number of bytes just moved and the number of bytes in all."""


def silent(moved: int, whole: int) -> None:
    """Show no progress."""


@dataclass(frozen=True)
class Entry:
    """A tensor to be written under `name`. `pieces` gives its elements, in order, as CPU tensors of any shape."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    pieces: Callable[[], Iterable[Tensor]]

    @classmethod
    def copy(cls, name: str, stored: CheckpointTensor) -> "Entry":
        """An unchanged copy of a checkpoint's tensor."""
        return cls(name, stored.dtype, stored.shape, stored.pieces)

    @property
    def size(self) -> int:
        return prod(self.shape) * self.dtype.itemsize


def write_tensors(
    folder: Path, entries: Sequence[Entry], *, max_shard_size: int | str = "5GB", progress: Progress = silent
) -> dict[str, str]:
    """Write `entries` as shards, and an index if there is more than one.

    The layout is that of safetensors' own writer, so that equal tensors give equal files; it checks each finished file.

    Returns:
        The CRC-32 of each tensor's bytes by name, computed as they pass: reading them again would take as long as writing.
    """
    files = arranged(entries, max_shard_size)
    whole = sum(entry.size for entry in entries)
    checksums: dict[str, str] = {}
    for filename, shard in files:
        checksums |= write_shard(folder / filename, shard, lambda moved: progress(moved, whole))
        SafetensorsFile(folder / filename)
    if len(files) > 1:
        parameters = sum(prod(entry.shape) for entry in entries)
        metadata = {"total_parameters": parameters, "total_size": whole}
        weight_map = {entry.name: filename for filename, shard in files for entry in shard}
        write_json(folder / INDEX, {"metadata": metadata, "weight_map": weight_map}, sort_keys=True)
    return checksums


def arranged(entries: Sequence[Entry], max_shard_size: int | str) -> list[tuple[str, list[Entry]]]:
    """The files and the entries of each, in the order of writing: larger dtypes first, then names, as in the library."""
    split = split_state_dict_into_shards_factory(
        {entry.name: entry for entry in entries},
        get_storage_size=lambda entry: entry.size,
        max_shard_size=shard_bytes(max_shard_size),
        filename_pattern=PATTERN,
    )
    by_name = {entry.name: entry for entry in entries}
    return [
        (filename, sorted((by_name[name] for name in names), key=lambda entry: (-entry.dtype.itemsize, entry.name)))
        for filename, names in split.filename_to_tensors.items()
    ]


def shard_bytes(size: int | str) -> int:
    """A shard's size as a number of bytes: 5_000_000_000, "5GB", "500 MB"."""
    match = re.fullmatch(r"(\d{1,15}(?:\.\d+)?) *([KMGT]B|)", str(size).strip().upper())
    found = 0 if match is None else int(float(match[1]) * UNITS[match[2]])
    if not isinstance(size, int | str) or found < 1:
        raise OutputError(Problem("max_shard_size", shorten(size), "a number of bytes above 0, or a size such as 5GB"))
    return found


def write_shard(file: Path, entries: Sequence[Entry], moved: Callable[[int], object]) -> dict[str, str]:
    """Write one safetensors file and return each tensor's CRC-32."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    begin = 0
    for entry in entries:
        # counted from the end of the header
        offsets = [begin, begin + entry.size]
        header[entry.name] = {"dtype": DTYPE_NAMES[entry.dtype], "shape": list(entry.shape), "data_offsets": offsets}
        begin = offsets[1]
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    # spaces after the header align the data to 8 bytes, as the library's writer does
    text += b" " * (-len(text) % 8)
    checksums = {}
    with DirectFile(file) as out:
        out.append(memoryview(len(text).to_bytes(8, "little") + text))
        for entry in entries:
            checksum = 0
            for piece in entry.pieces():
                data = tensor_bytes(piece.contiguous())
                # a tensor in memory is a single piece: in parts, it is still cached when the checksum has been computed
                for start in range(0, len(data), PIECE_BYTES):
                    part = data[start : start + PIECE_BYTES]
                    checksum = zlib.crc32(part, checksum)
                    out.append(part)
                    moved(len(part))
            checksums[entry.name] = f"{checksum:08x}"
    return checksums


def write_json(file: Path, document: Mapping[str, Any], *, sort_keys: bool = False) -> None:
    file.write_text(json.dumps(document, indent=2, sort_keys=sort_keys, ensure_ascii=False) + "\n", "utf-8")
