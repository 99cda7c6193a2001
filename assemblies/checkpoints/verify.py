"""Re-reading a folder: does it hold what its spec and provenance say?"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pairform.assemblies.checkpoints.checkpoint import PROVENANCE, open_checkpoint
from pairform.assemblies.checkpoints.checksum import checksums
from pairform.assemblies.checkpoints.finite import finite
from pairform.assemblies.checkpoints.hub import find_folder
from pairform.assemblies.checkpoints.sink import Progress, silent
from pairform.assemblies.checkpoints.stored import DTYPE_NAMES, INDEX, SINGLE, StoredTensor, present, stored_tensors
from pairform.registry import CheckpointError, PairformError, Problem, SpecError, read_json, shorten


@dataclass(frozen=True)
class Verification:
    """What was found. `checksums` is False where the folder has no provenance to compare with."""

    folder: Path
    tensors: int
    parameters: int
    checksums: bool
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        return not self.problems


def verify(folder: str | Path, *, progress: Progress = silent) -> Verification:
    """Names and shapes against the spec, checksums and dtypes against provenance.json, and every value for being finite."""
    folder = find_folder(folder)
    problems: list[Problem] = []
    stored: dict[str, StoredTensor] = {}
    record = None
    try:
        open_checkpoint(folder)
    except PairformError as error:
        problems += error.problems
    try:
        stored = stored_tensors(folder)
        problems += weights_twice(folder)
        whole = sum(tensor.end - tensor.begin for tensor in stored.values())
        record = recorded(folder, problems)
        if record is not None:
            problems += changed(stored, record, folder)
        for tensor in stored.values():
            problems += not_finite(tensor)
            progress(tensor.end - tensor.begin, whole)
    except (CheckpointError, SpecError) as error:
        problems += (problem for problem in error.problems if problem not in problems)
    parameters = sum((tensor.end - tensor.begin) // tensor.dtype.itemsize for tensor in stored.values())
    return Verification(folder, len(stored), parameters, record is not None, tuple(problems))


def weights_twice(folder: Path) -> Iterator[Problem]:
    """Shards beside the single file: which of them a program reads is its own choice."""
    if present(folder / SINGLE) and present(folder / INDEX):
        named = read_json(folder / INDEX).get("weight_map")
        if not isinstance(named, dict) or set(map(str, named.values())) != {SINGLE}:
            found = f"{INDEX}, which names other files, beside {SINGLE}"
            yield Problem(str(folder), found, "the weights once", "Remove what is not the model's.")


def recorded(folder: Path, problems: list[Problem]) -> Mapping[str, Mapping[str, Any]] | None:
    """The checksums and dtypes in a folder's provenance, by tensor; folders of earlier versions have no dtypes."""
    path = folder / PROVENANCE
    if not present(path):
        return None
    try:
        provenance = read_json(path)
    except SpecError as error:
        problems += error.problems
        return None
    found = {"tensors": provenance.get("tensors"), "dtypes": provenance.get("dtypes", {})}
    for field, value in found.items():
        if not isinstance(value, dict):
            problems.append(Problem(f"{path}: {field}", shorten(value), "an object: tensor -> what was written"))
            return None
    return found


def changed(stored: Mapping[str, StoredTensor], record: Mapping[str, Mapping[str, Any]], folder: Path) -> Iterator[Problem]:
    found: dict[str, str] = {}
    for file in sorted({tensor.file for tensor in stored.values()}):
        found |= checksums(file)
    for name in sorted(found.keys() | record["tensors"].keys()):
        where, wanted = f"{folder}: {name}", record["tensors"].get(name)
        if found.get(name) != wanted:
            yield Problem(where, f"the checksum {found.get(name)}", f"{shorten(wanted)}, as in {PROVENANCE}")
    for name, dtype in record["dtypes"].items():
        if name in stored and DTYPE_NAMES[stored[name].dtype] != dtype:
            where = f"{folder}: {name}"
            yield Problem(where, f"the dtype {DTYPE_NAMES[stored[name].dtype]}", f"{shorten(dtype)}, as in {PROVENANCE}")


def not_finite(tensor: StoredTensor) -> Iterator[Problem]:
    """NaN and infinite values, looked for in pieces."""
    count = sum(int((~piece.isfinite()).sum()) for piece in tensor.pieces() if not finite(piece))
    if count:
        yield Problem(tensor.place, f"{count} values that are NaN or infinite", "finite weights")
