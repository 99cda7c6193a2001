"""The record of a folder's content in provenance.json: each tensor's checksum, dtype and shape, and the other files' digests.

A CRC-32 finds damage: a flipped bit, a truncated or mixed-up file. Whoever changes a tensor on purpose can keep its CRC-32.
SHA-256 finds that too, when it is compared with a digest from elsewhere.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pairform.assemblies.checkpoints.reading.safetensors_file import DTYPE_NAMES
from pairform.assemblies.checkpoints.reading.weights import exists
from pairform.assemblies.checkpoints.writing.contents import PROVENANCE, model_files
from pairform.assemblies.checkpoints.writing.shards import Entry
from pairform.registry import CheckpointError, Problem, SpecError, open_regular, read_json, shorten

OPTIONAL = ("dtypes", "shapes", "files")
"""Fields that folders of earlier versions may lack; an absent one is not compared."""


@dataclass(frozen=True)
class Record:
    """By tensor: its checksum, dtype and shape. By file: its SHA-256. None was not recorded."""

    checksums: Mapping[str, Any]
    dtypes: Mapping[str, Any] | None
    shapes: Mapping[str, Any] | None
    files: Mapping[str, Any] | None

    def compare(
        self, name: str, checksum: str, dtype: torch.dtype, shape: Sequence[int]
    ) -> Iterator[tuple[str, object, object]]:
        """What was recorded of a tensor and what was found: (what, recorded, found)."""
        yield "checksum", self.checksums.get(name), checksum
        if self.dtypes is not None:
            yield "dtype", self.dtypes.get(name), DTYPE_NAMES[dtype]
        if self.shapes is not None:
            yield "shape", self.shapes.get(name), list(shape)


def record_of(folder: Path, entries: Sequence[Entry], checksums: Mapping[str, str]) -> dict[str, Any]:
    """The record of a folder that was just written, as JSON."""
    entries = sorted(entries, key=lambda entry: entry.name)
    return {
        "checksum": "crc32",
        "tensors": dict(sorted(checksums.items())),
        "dtypes": {entry.name: DTYPE_NAMES[entry.dtype] for entry in entries},
        "shapes": {entry.name: list(entry.shape) for entry in entries},
        "files": files_beside(folder),
    }


def read_record(folder: Path, problems: list[Problem]) -> Record | None:
    """The record in a folder's provenance. None if there is none, or if it cannot be read: `problems` then says why."""
    path = folder / PROVENANCE
    if not exists(path):
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
    """The SHA-256 of a regular file, as `sha256sum` prints it; a `CheckpointError` if it cannot be read."""
    try:
        with open_regular(file) as raw:
            return hashlib.file_digest(raw, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(Problem(str(file), error.strerror or str(error), "a regular file")) from None
