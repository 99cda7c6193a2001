"""What a model's folder holds: its files, as opposed to someone's own, and the record of them in provenance.json.

The record has each tensor's checksum, dtype and shape, and the other files' digests. A CRC-32 finds damage: a flipped bit, a
truncated or mixed-up file. Whoever changes a tensor on purpose can keep its CRC-32. SHA-256 finds that too, when it is compared
with a digest from elsewhere.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pairform.assemblies.checkpoints.reading.file_names import COMPANIONS, ENCODER_TOKENIZER, OTHERS
from pairform.assemblies.checkpoints.reading.file_names import PROVENANCE as PROVENANCE
from pairform.assemblies.checkpoints.reading.model_folder import CONFIG, SPEC
from pairform.assemblies.checkpoints.reading.safetensors_file import DTYPE_NAMES
from pairform.assemblies.checkpoints.reading.weights import INDEX, exists
from pairform.assemblies.checkpoints.writing.shards import Entry
from pairform.assemblies.families.tokens import GENERATION
from pairform.registry import CheckpointError, Problem, SpecError, open_regular, read_json, shorten

WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")
Record = dict[str, dict[str, Any]]
"""By field: the tensors or files, each with what was recorded of it."""
EXPORTED = "exported"
"""The field of provenance.json in a folder for another program: the SHA-256 of each of its files, by relative path."""
TENSOR_FIELDS = {"tensors": "checksum", "dtypes": "dtype", "shapes": "shape"}
"""The fields by tensor, and what they hold. Folders of earlier versions may lack all but the first, and `files`."""


def model_files(folder: Path) -> list[str]:
    """The files in a folder that a model written by pairform can consist of, as relative paths in order."""
    beside = (SPEC, CONFIG, PROVENANCE, INDEX, GENERATION, *COMPANIONS)
    names = [path.name for path in folder.iterdir() if path.name in beside or WEIGHTS.fullmatch(path.name)]
    own = folder / ENCODER_TOKENIZER
    if own.is_dir():
        names += [f"{own.name}/{path.name}" for path in own.iterdir() if path.name in COMPANIONS]
    return sorted(names)


def holds_model(folder: Path) -> bool:
    """Whether a folder is a model's. Many other programs have a config.json too, but no weights beside it."""
    files = [path.name for path in folder.iterdir() if path.is_file()]
    return (
        exported_files(folder) is not None
        or SPEC in files
        or (CONFIG in files and any(WEIGHTS.fullmatch(name) for name in files))
    )


def foreign_files(folder: Path) -> list[str]:
    """The names in a folder that are not of a model's files: everything but regular files and links of known names."""
    if (exported := exported_files(folder)) is not None:
        return [name for name, digest in digests_below(folder).items() if digest is None or exported.get(name) != digest]
    known = {*model_files(folder), *OTHERS}
    found = []
    for path in folder.iterdir():
        if path.name == ENCODER_TOKENIZER and is_folder(path):
            inner = [f"{path.name}/{each.name}" for each in path.iterdir() if is_folder(each) or each.name not in OTHERS]
            found += [name for name in inner if name not in known or is_folder(folder / name)]
        elif path.name not in known or is_folder(path):
            found.append(path.name)
    return sorted(found)


def exported_files(folder: Path) -> dict[str, Any] | None:
    """What the record of a folder for another program says of its files; None for other folders."""
    try:
        exported = read_json(folder / PROVENANCE).get(EXPORTED) if exists(folder / PROVENANCE) else None
    except SpecError:
        return None
    return exported if isinstance(exported, dict) else None


def digests_below(folder: Path) -> dict[str, str | None]:
    """The SHA-256 of each file in a folder and those below but its provenance, by relative path; None for what is no file."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name != PROVENANCE and not is_folder(path):
            found[name] = digest_of(path) if path.is_file() and not path.is_symlink() else None
    return found


def is_folder(path: Path) -> bool:
    """Whether this is a folder itself, not a link to one: removing a link removes nothing else."""
    return path.is_dir() and not path.is_symlink()


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
