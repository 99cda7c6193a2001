"""Checking a folder against its spec and provenance."""

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from pairform.assemblies.checkpoints.reading.checkpoint import checkpoint_in
from pairform.assemblies.checkpoints.reading.hub import find_folder
from pairform.assemblies.checkpoints.reading.model_folder import ModelFolder
from pairform.assemblies.checkpoints.reading.safetensors_file import DTYPE_NAMES, StoredTensor, tensor_bytes
from pairform.assemblies.checkpoints.reading.weights import INDEX, SINGLE, exists
from pairform.assemblies.checkpoints.writing.contents import (
    PROVENANCE,
    TENSOR_FIELDS,
    Record,
    digest_of,
    files_beside,
    model_files,
    read_record,
)
from pairform.assemblies.checkpoints.writing.finite import finite
from pairform.assemblies.checkpoints.writing.shards import Progress, silent
from pairform.registry import CheckpointError, InputError, PairformError, Problem, SpecError, read_json, shorten

DIGESTS = ("sha256",)


@dataclass(frozen=True)
class Verification:
    """The result of `verify`.

    Attributes:
        tensors, parameters: how many there are.
        checksums: whether the folder has a provenance to compare with.
        problems: everything that is wrong.
        digests: file -> SHA-256, for every file of the model; empty unless requested.
    """

    folder: Path
    tensors: int
    parameters: int
    checksums: bool
    problems: tuple[Problem, ...]
    digests: Mapping[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return not self.problems


def verify(
    folder: str | Path, *, digest: str | None = None, progress: Progress = silent, revision: str | None = None
) -> Verification:
    """Check that a folder holds a model and is as it was written.

    Names and shapes are compared with the spec; each tensor's checksum, dtype and shape, and the other files of the model
    (spec, tokenizer, generation settings), with provenance.json; every value must be finite. provenance.json is in the same
    folder: this finds damage, not a change by someone who rewrote both.

    Args:
        folder: a path, or a hub id `owner/name` or `owner/name@revision`.
        digest: "sha256" adds each file's digest, to be compared with one from a trusted source.
        progress: called as in `convert`, with bytes read.
        revision: of a hub id that does not say it itself.

    Returns:
        What was found; `ok` if nothing is wrong.

    Raises:
        CheckpointError: there is no such folder.
        InputError: `digest` is unknown.
    """
    if digest is not None and digest not in DIGESTS:
        raise InputError(Problem("digest", shorten(digest), f"{' or '.join(DIGESTS)}, or nothing"))
    model = ModelFolder(find_folder(folder, revision))
    folder = model.path
    problems: list[Problem] = []
    stored: dict[str, StoredTensor] = {}
    record = None
    try:
        checkpoint_in(model)
    except PairformError as error:
        problems += error.problems
    try:
        stored = model.tensors
        problems += weights_twice(folder)
        whole = sum(tensor.nbytes for tensor in stored.values())
        record = read_record(folder, problems)
        if record is not None:
            if "files" in record:
                problems += differences(record["files"], files_beside(folder), folder)
            problems += missing(record["tensors"], stored, folder)
        for name, tensor in stored.items():
            problems += check_tensor(name, tensor, record, folder)
            progress(tensor.nbytes, whole)
    except (CheckpointError, SpecError) as error:
        # `checkpoint_in` may have met them too
        problems += (problem for problem in error.problems if problem not in problems)
    parameters = sum(prod(tensor.shape) for tensor in stored.values())
    digests = {name: digest_of(folder / name) for name in model_files(folder)} if digest else {}
    return Verification(folder, len(stored), parameters, record is not None, tuple(problems), digests)


def weights_twice(folder: Path) -> Iterator[Problem]:
    """Shards beside the single file: programs differ in which of them they read."""
    if exists(folder / SINGLE) and exists(folder / INDEX):
        named = read_json(folder / INDEX).get("weight_map")
        if not isinstance(named, dict) or set(map(str, named.values())) != {SINGLE}:
            found = f"{INDEX}, which names other files, beside {SINGLE}"
            yield Problem(str(folder), found, "the weights once", "Remove the files that are not the model's.")


def differences(wanted: Mapping[str, object], found: Mapping[str, str], folder: Path) -> Iterator[Problem]:
    """Files beside the weights that differ from the record."""
    for name in sorted(found.keys() | wanted.keys()):
        if name not in found:
            yield Problem(f"{folder / name}", "no such file", f"the one in {PROVENANCE}")
        elif name not in wanted:
            yield Problem(f"{folder / name}", "a file that was added", f"only those in {PROVENANCE}")
        elif found[name] != wanted[name]:
            yield Problem(f"{folder / name}", f"the SHA-256 {found[name]}", f"{shorten(wanted[name])}, as in {PROVENANCE}")


def missing(checksums: Mapping[str, Any], stored: Mapping[str, StoredTensor], folder: Path) -> Iterator[Problem]:
    for name in sorted(checksums.keys() - stored.keys()):
        wanted = f"one with the checksum {shorten(checksums[name])}, as in {PROVENANCE}"
        yield Problem(f"{folder}: {name}", "no such tensor", wanted)


def check_tensor(name: str, tensor: StoredTensor, record: Record | None, folder: Path) -> Iterator[Problem]:
    """Compare a tensor's dtype, shape and bytes with the record, and check its values; read once, in pieces."""
    checksum, count = 0, 0
    for piece in tensor.pieces():
        checksum = zlib.crc32(tensor_bytes(piece), checksum)
        if tensor.dtype.is_floating_point and not finite(piece):
            count += int((~piece.isfinite()).sum())
    if count:
        yield Problem(tensor.place, f"{count} values that are NaN or infinite", "finite weights")
    found = {"tensors": f"{checksum:08x}", "dtypes": DTYPE_NAMES[tensor.dtype], "shapes": list(tensor.shape)}
    for kind, value in found.items():
        if record is not None and kind in record and (wanted := record[kind].get(name)) != value:
            yield Problem(f"{folder}: {name}", f"the {TENSOR_FIELDS[kind]} {value}", f"{shorten(wanted)}, as in {PROVENANCE}")
