"""What provenance.json records of a folder's content: each tensor's checksum, dtype and shape, and the other files' digests."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pairform.assemblies.checkpoints.reading.stored import DTYPE_NAMES, present
from pairform.assemblies.checkpoints.writing.checksum import ALGORITHM, sha256
from pairform.assemblies.checkpoints.writing.contents import PROVENANCE, model_files
from pairform.assemblies.checkpoints.writing.shards import Entry
from pairform.registry import CheckpointError, Problem, SpecError, read_json, shorten

OPTIONAL = ("dtypes", "shapes", "files")
"""Fields that folders of earlier versions may lack: what is absent is not compared."""


@dataclass(frozen=True)
class Record:
    """By tensor: its checksum, dtype and shape. By file: its SHA-256. What is None was not recorded."""

    checksums: Mapping[str, Any]
    dtypes: Mapping[str, Any] | None
    shapes: Mapping[str, Any] | None
    files: Mapping[str, Any] | None

    def of(self, name: str, checksum: str, dtype: torch.dtype, shape: Sequence[int]) -> Iterator[tuple[str, object, object]]:
        """What is recorded of a tensor beside what was found: (what, recorded, found)."""
        yield "checksum", self.checksums.get(name), checksum
        if self.dtypes is not None:
            yield "dtype", self.dtypes.get(name), DTYPE_NAMES[dtype]
        if self.shapes is not None:
            yield "shape", self.shapes.get(name), list(shape)


def record_of(folder: Path, entries: Sequence[Entry], checksums: Mapping[str, str]) -> dict[str, Any]:
    """The record of a folder that was just written, as JSON."""
    entries = sorted(entries, key=lambda entry: entry.name)
    return {
        "checksum": ALGORITHM,
        "tensors": dict(sorted(checksums.items())),
        "dtypes": {entry.name: DTYPE_NAMES[entry.dtype] for entry in entries},
        "shapes": {entry.name: list(entry.shape) for entry in entries},
        "files": files_beside(folder),
    }


def recorded(folder: Path, problems: list[Problem]) -> Record | None:
    """The record in a folder's provenance. None where there is none, or where it cannot be read: then `problems` says why."""
    path = folder / PROVENANCE
    if not present(path):
        return None
    try:
        provenance = read_json(path)
    except SpecError as error:
        problems += error.problems
        return None
    for field in ("tensors", *(field for field in OPTIONAL if field in provenance)):
        if not isinstance(provenance.get(field), dict):
            problems.append(Problem(f"{path}: {field}", shorten(provenance.get(field)), "an object with what was written"))
            return None
    return Record(provenance["tensors"], *(provenance.get(field) for field in OPTIONAL))


def files_beside(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file of a model but its weights and its provenance."""
    names = [name for name in model_files(folder) if not name.endswith(".safetensors") and name != PROVENANCE]
    return {name: digest_of(folder / name) for name in names}


def digest_of(file: Path) -> str:
    """As `sha256`, with what cannot be read as a `CheckpointError`."""
    try:
        return sha256(file)
    except OSError as error:
        raise CheckpointError(Problem(str(file), error.strerror or str(error), "a regular file")) from None
