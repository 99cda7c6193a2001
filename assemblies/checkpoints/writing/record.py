"""The record of a folder's content in provenance.json: each tensor's checksum, dtype and shape, and the other files' digests.

A CRC-32 finds damage: a flipped bit, a truncated or mixed-up file. Whoever changes a tensor on purpose can keep its CRC-32.
SHA-256 finds that too, when it is compared with a digest from elsewhere.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pairform.assemblies.checkpoints.reading.safetensors_file import DTYPE_NAMES
from pairform.assemblies.checkpoints.reading.weights import exists
from pairform.assemblies.checkpoints.writing.contents import PROVENANCE, model_files
from pairform.assemblies.checkpoints.writing.shards import Entry
from pairform.registry import CheckpointError, Problem, SpecError, open_regular, read_json, shorten

Record = dict[str, dict[str, Any]]
"""By field: the tensors or files, each with what was recorded of it."""
TENSOR_FIELDS = {"tensors": "checksum", "dtypes": "dtype", "shapes": "shape"}
"""The fields by tensor, and what they hold. Folders of earlier versions may lack all but the first, and `files`."""


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
    record: Record = {}
    for field in ("tensors", *(field for field in (*TENSOR_FIELDS, "files") if field in provenance)):
        value = provenance.get(field)
        if not isinstance(value, dict):
            problems.append(Problem(f"{path}: {field}", shorten(value), "an object with what was written"))
            return None
        record[field] = value
    return record


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
