"""Tensors on disk: which files a folder's weights are in, checked before anything is read from them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from pairform.assemblies.checkpoints.reading.header import read_header, readable
from pairform.assemblies.checkpoints.reading.identity import Identity, open_same, require_same
from pairform.assemblies.checkpoints.reading.quantised import quantised_by, quantised_tensor
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
    identity: Identity = field(kw_only=True)
    """Which file its header was read from: reading its bytes from any other is an error."""

    @property
    def place(self) -> str:
        """Where an error says that it is."""
        return f"{self.file}: {self.name}"

    def read(self, device: str = "cpu") -> Tensor:
        """The whole tensor; on the CPU it stays mapped to the file."""
        with readable(self.file):
            with safe_open(self.file, "pt", device=device) as opened:
                tensor: Tensor = opened.get_tensor(self.name)
            require_same(self.file, self.identity, Identity.of(self.file.stat()))
        return tensor

    def pieces(self, rows: int | None = None, stop: int | None = None, start: int = 0) -> Iterator[Tensor]:
        """`rows` rows at a time from row `start` up to row `stop`; absent, about `BUFFER` bytes at a time and all.

        Each is read into memory of its own. safetensors would map the file: one that shrinks meanwhile then kills the
        process, and an interrupt inside the library comes out as a damaged file. A tensor without elements has no pieces.
        """
        if self.begin == self.end:
            return
        count, *rest = self.shape or (1,)
        stop = count if stop is None else stop
        row_bytes = prod(rest) * self.dtype.itemsize
        rows = rows or max(BUFFER // max(row_bytes, 1), 1)
        with readable(self.file), open_same(self.file, self.identity) as raw:
            raw.seek(self.begin + start * row_bytes)
            for begin in range(start, stop, rows):
                piece = torch.empty((min(rows, stop - begin), *rest), dtype=self.dtype)
                if raw.readinto(piece.view(-1).view(torch.uint8).numpy().data) < piece.nbytes:
                    raise EOFError("its end before that of the tensor " + self.name)
                yield piece


def present(path: Path) -> bool:
    """Whether there is a file, of whatever kind: one that is not regular is refused when it is opened."""
    return path.exists() and not path.is_dir()


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Every tensor of a folder by its name in the files. Only safetensors are read, the single file before shards, as
    transformers does."""
    index, single = folder / INDEX, folder / SINGLE
    if present(single):
        return tensors_in(single)
    if present(index):
        return _indexed(folder, index)
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
    """Every tensor of one safetensors file."""
    header, base, identity = read_header(file)
    if any(entry["dtype"] not in DTYPES for entry in header.values()) and (found := quantised_by(header)) is not None:
        raise CheckpointError(quantised_tensor(file, *found))
    return {name: _stored(file, name, entry, base, identity) for name, entry in header.items()}


def _stored(file: Path, name: str, entry: Mapping[str, Any], base: int, identity: Identity) -> StoredTensor:
    if entry["dtype"] not in DTYPES:
        found = f"the dtype {entry['dtype']}"
        remedy = "Weights in other dtypes are usually quantised: use the checkpoint that is not."
        raise CheckpointError(Problem(f"{file}: {name}", found, f"one of {', '.join(DTYPES)}", remedy))
    begin, end = entry["data_offsets"]
    shape = tuple(entry["shape"])
    return StoredTensor(file, name, DTYPES[entry["dtype"]], shape, base + begin, base + end, identity=identity)


def _indexed(folder: Path, index: Path) -> dict[str, StoredTensor]:
    try:
        weight_map = read_json(index).get("weight_map")
    except SpecError as error:
        raise CheckpointError(error.problems) from None
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(Problem(str(index), f"weight_map: {shorten(weight_map)}", "an object: tensor -> file"))
    there = {path.name for path in folder.iterdir() if not path.is_dir()}
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
