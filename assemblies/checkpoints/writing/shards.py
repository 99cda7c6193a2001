"""Writing safetensors shards as a stream: the header first, then each tensor's bytes, never a whole file in memory."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_state_dict_into_shards_factory

from pairform.assemblies.checkpoints.reading.stored import DTYPE_NAMES, INDEX, tensors_in
from pairform.assemblies.checkpoints.writing.direct_io import DirectFile
from pairform.assemblies.checkpoints.writing.tensor_stream import Content, Progress, Sink, silent
from pairform.registry import OutputError, Problem, shorten

PATTERN = "model{suffix}.safetensors"
UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


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


def write_tensors(
    folder: Path, entries: Sequence[Entry], *, max_shard_size: int | str = "5GB", progress: Progress = silent
) -> dict[str, str]:
    """Write `entries` as shards, and an index where there is more than one. Returns each tensor's checksum by name.

    The layout is that of safetensors' own writer, so equal tensors give equal files, and safetensors opens each file at the
    end. Checksums are of the bytes as they pass: reading them back costs as much again as writing them.
    """
    split = split_state_dict_into_shards_factory(
        {entry.name: entry for entry in entries},
        get_storage_size=lambda entry: entry.size,
        max_shard_size=shard_bytes(max_shard_size),
        filename_pattern=PATTERN,
    )
    whole = sum(entry.size for entry in entries)
    by_name = {entry.name: entry for entry in entries}
    found: dict[str, str] = {}
    for filename, names in split.filename_to_tensors.items():
        found |= write_shard(folder / filename, [by_name[name] for name in names], lambda moved: progress(moved, whole))
        tensors_in(folder / filename)
    if split.is_sharded:
        parameters = sum(prod(entry.shape) for entry in entries)
        metadata = {"total_parameters": parameters, "total_size": whole}
        write_json(folder / INDEX, {"metadata": metadata, "weight_map": split.tensor_to_filename}, sort_keys=True)
    return found


def shard_bytes(size: int | str) -> int:
    """A shard's size as a number of bytes: 5_000_000_000, "5GB", "500 MB"."""
    match = re.fullmatch(r"(\d{1,15}(?:\.\d+)?) *([KMGT]B|)", str(size).strip().upper())
    found = 0 if match is None else int(float(match[1]) * UNITS[match[2]])
    if not isinstance(size, int | str) or found < 1:
        raise OutputError(Problem("max_shard_size", shorten(size), "a number of bytes above 0, or a size such as 5GB"))
    return found


def write_shard(file: Path, entries: Sequence[Entry], moved: Callable[[int], object]) -> dict[str, str]:
    """One safetensors file; larger dtypes first, then by name, as the library does. Returns each tensor's checksum."""
    entries = sorted(entries, key=lambda entry: (-entry.dtype.itemsize, entry.name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    begin = 0
    for entry in entries:
        offsets = [begin, begin + entry.size]
        header[entry.name] = {"dtype": DTYPE_NAMES[entry.dtype], "shape": list(entry.shape), "data_offsets": offsets}
        begin = offsets[1]
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    found = {}
    with DirectFile(file) as out:
        out.append(len(text).to_bytes(8, "little") + text)
        sink = Sink(out, moved)
        for entry in entries:
            entry.content.write(sink)
            found[entry.name] = sink.checksum()
    return found


def write_json(file: Path, document: Mapping[str, Any], *, sort_keys: bool = False) -> None:
    file.write_text(json.dumps(document, indent=2, sort_keys=sort_keys, ensure_ascii=False) + "\n", "utf-8")
