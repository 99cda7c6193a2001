"""Tensors on disk: which files a folder's weights are in, checked before anything is read from them."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pairform.registry import CheckpointError, Problem, SpecError, read_json, shorten

BUFFER = 1 << 23
"""Bytes moved at a time through memory."""
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")

DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
DTYPE_NAMES: Mapping[torch.dtype, str] = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a safetensors file: bytes `begin` to `end` of the file."""

    file: Path
    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int

    def read(self, device: str = "cpu") -> Tensor:
        """The whole tensor; on the CPU it stays mapped to the file."""
        with readable(self.file), safe_open(self.file, "pt", device=device) as opened:
            tensor: Tensor = opened.get_tensor(self.name)
        return tensor

    def pieces(self, rows: int | None = None, stop: int | None = None, start: int = 0) -> Iterator[Tensor]:
        """`rows` rows at a time from row `start` up to row `stop`; absent, about `BUFFER` bytes at a time and all.

        Each is read into memory of its own. safetensors would map the file: one that shrinks meanwhile then kills the
        process, and an interrupt inside the library comes out as a damaged file.
        """
        count, *rest = self.shape or (1,)
        stop = count if stop is None else stop
        row_bytes = prod(rest) * self.dtype.itemsize
        rows = rows or max(BUFFER // max(row_bytes, 1), 1)
        with readable(self.file), self.file.open("rb") as raw:
            raw.seek(self.begin + start * row_bytes)
            for begin in range(start, stop, rows):
                piece = torch.empty((min(rows, stop - begin), *rest), dtype=self.dtype)
                if raw.readinto(piece.view(-1).view(torch.uint8).numpy().data) < piece.nbytes:
                    raise EOFError("its end before that of the tensor " + self.name)
                yield piece


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Every tensor of a folder by its name in the files. Only safetensors are read."""
    index = folder / INDEX
    if index.is_file():
        return _indexed(folder, index)
    if (folder / SINGLE).is_file():
        return tensors_in(folder / SINGLE)
    if any(any(folder.glob(pattern)) for pattern in PICKLES):
        raise CheckpointError(
            Problem(
                str(folder),
                "weights as pickles only",
                f"{SINGLE} or {INDEX}",
                "Loading a pickle can run any code; save the model with safetensors first.",
            )
        )
    raise CheckpointError(Problem(str(folder), "no weights", f"{SINGLE} or {INDEX}"))


def tensors_in(file: Path) -> dict[str, StoredTensor]:
    """Every tensor of one safetensors file; the library checks the header against the file's length."""
    with readable(file):
        with safe_open(file, "pt") as opened:
            names = set(opened.keys())
        with file.open("rb") as raw:
            length = int.from_bytes(raw.read(8), "little")
            header = json.loads(raw.read(length))
    return {name: _stored(file, name, header[name], 8 + length) for name in sorted(names)}


@contextlib.contextmanager
def readable(file: Path) -> Iterator[None]:
    """What goes wrong while a safetensors file is read is the file's fault."""
    try:
        yield
    except (SafetensorError, OSError, EOFError, json.JSONDecodeError) as error:
        remedy = "The file is truncated or damaged: fetch or write it again."
        raise CheckpointError(Problem(str(file), f"{error}", "a whole safetensors file", remedy)) from None


def _stored(file: Path, name: str, entry: Mapping[str, Any], base: int) -> StoredTensor:
    if entry["dtype"] not in DTYPES:
        raise CheckpointError(Problem(f"{file}: {name}", f"the dtype {entry['dtype']}", f"one of {', '.join(DTYPES)}"))
    begin, end = entry["data_offsets"]
    return StoredTensor(file, name, DTYPES[entry["dtype"]], tuple(entry["shape"]), base + begin, base + end)


def _indexed(folder: Path, index: Path) -> dict[str, StoredTensor]:
    try:
        weight_map = read_json(index).get("weight_map")
    except SpecError as error:
        raise CheckpointError(error.problems) from None
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(Problem(str(index), f"weight_map: {shorten(weight_map)}", "an object: tensor -> file"))
    there = {path.name for path in folder.iterdir() if path.is_file()}
    files: dict[str, dict[str, StoredTensor]] = {}
    for name in sorted(set(map(str, weight_map.values()))):
        if Path(name).name != name or name in ("", ".", ".."):
            raise CheckpointError(Problem(str(index), f"the file {name!r}", "plain file names beside the index"))
        if name not in there:
            raise CheckpointError(Problem(str(index), f"the file {name!r}, which is not there", "files beside the index"))
        files[name] = tensors_in(folder / name)
    found: dict[str, StoredTensor] = {}
    problems = []
    for file, tensors in files.items():
        for name, tensor in tensors.items():
            if name in found:
                problems.append(Problem(f"{folder / file}: {name}", f"it again after {found[name].file.name}", "it once"))
            elif weight_map.get(name) != file:
                problems.append(
                    Problem(f"{folder / file}: {name}", f"{weight_map.get(name)!r} for it in the index", f"{file!r}")
                )
            else:
                found[name] = tensor
    problems += [
        Problem(f"{index}: {name}", f"no such tensor in {file}", "every indexed tensor in its file")
        for name, file in weight_map.items()
        if name not in files[str(file)]
    ]
    if problems:
        raise CheckpointError(problems)
    return found
