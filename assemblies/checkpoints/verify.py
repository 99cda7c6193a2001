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
from pairform.assemblies.checkpoints.stored import INDEX, SINGLE, StoredTensor, present, stored_tensors
from pairform.registry import CheckpointError, PairformError, Problem, SpecError, read_json


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
    """Names, shapes and dtypes against the spec, checksums against provenance.json, and every value for being finite."""
    folder = find_folder(folder)
    problems: list[Problem] = []
    stored: dict[str, StoredTensor] = {}
    recorded = None
    try:
        open_checkpoint(folder)
    except PairformError as error:
        problems += error.problems
    try:
        stored = stored_tensors(folder)
        problems += weights_twice(folder)
        whole = sum(tensor.end - tensor.begin for tensor in stored.values())
        recorded = recorded_checksums(folder, problems)
        if recorded is not None:
            problems += changed(stored, recorded, folder)
        for tensor in stored.values():
            problems += not_finite(tensor)
            progress(tensor.end - tensor.begin, whole)
    except (CheckpointError, SpecError) as error:
        problems += (problem for problem in error.problems if problem not in problems)
    parameters = sum((tensor.end - tensor.begin) // tensor.dtype.itemsize for tensor in stored.values())
    return Verification(folder, len(stored), parameters, recorded is not None, tuple(problems))


def weights_twice(folder: Path) -> Iterator[Problem]:
    """Shards beside the single file: which of them a program reads is its own choice."""
    if present(folder / SINGLE) and present(folder / INDEX):
        named = read_json(folder / INDEX).get("weight_map")
        if not isinstance(named, dict) or set(map(str, named.values())) != {SINGLE}:
            found = f"{INDEX}, which names other files, beside {SINGLE}"
            yield Problem(str(folder), found, "the weights once", "Remove what is not the model's.")


def recorded_checksums(folder: Path, problems: list[Problem]) -> Mapping[str, Any] | None:
    path = folder / PROVENANCE
    if not path.is_file():
        return None
    try:
        recorded = read_json(path).get("tensors")
    except SpecError as error:
        problems += error.problems
        return None
    if not isinstance(recorded, dict):
        problems.append(Problem(f"{path}: tensors", repr(recorded), "an object: tensor -> checksum"))
        return None
    return recorded


def changed(stored: Mapping[str, StoredTensor], recorded: Mapping[str, Any], folder: Path) -> Iterator[Problem]:
    found: dict[str, str] = {}
    for file in sorted({tensor.file for tensor in stored.values()}):
        found |= checksums(file)
    for name in sorted(found.keys() | recorded.keys()):
        if found.get(name) != recorded.get(name):
            where = f"{folder}: {name}"
            yield Problem(where, f"the checksum {found.get(name)}", f"{recorded.get(name)}, as in {PROVENANCE}")


def not_finite(tensor: StoredTensor) -> Iterator[Problem]:
    """NaN and infinite values, looked for in pieces."""
    count = sum(int((~piece.isfinite()).sum()) for piece in tensor.pieces() if not finite(piece))
    if count:
        yield Problem(tensor.place, f"{count} values that are NaN or infinite", "finite weights")
