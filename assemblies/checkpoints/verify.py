"""Re-reading a folder: does it hold what its spec and provenance say?"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from pairform.assemblies.checkpoints.reading.checkpoint import open_checkpoint
from pairform.assemblies.checkpoints.reading.hub import find_folder
from pairform.assemblies.checkpoints.reading.stored import INDEX, SINGLE, StoredTensor, present, stored_tensors
from pairform.assemblies.checkpoints.writing.checksum import Checksum
from pairform.assemblies.checkpoints.writing.contents import PROVENANCE, model_files
from pairform.assemblies.checkpoints.writing.finite import finite
from pairform.assemblies.checkpoints.writing.record import Record, digest_of, files_beside, recorded
from pairform.assemblies.checkpoints.writing.tensor_stream import Progress, silent
from pairform.registry import CheckpointError, InputError, PairformError, Problem, SpecError, read_json, shorten

DIGESTS = ("sha256",)


@dataclass(frozen=True)
class Verification:
    """What was found. `checksums` is False where the folder has no provenance to compare with."""

    folder: Path
    tensors: int
    parameters: int
    checksums: bool
    problems: tuple[Problem, ...]
    digests: Mapping[str, str] = field(default_factory=dict)
    """File -> its digest, of every file of the model; empty unless asked for."""

    @property
    def ok(self) -> bool:
        return not self.problems


def verify(folder: str | Path, *, digest: str | None = None, progress: Progress = silent) -> Verification:
    """Whether a folder is as it was written, and could be a model.

    Names and shapes are compared with the spec; each tensor's checksum, dtype and shape, and the other files of the model
    (spec, tokenizer, generation settings), with provenance.json; every value must be finite. provenance.json lies in the same
    folder: this finds damage, not a change by somebody who wrote both.

    digest: "sha256" adds each file's digest, to be compared with one from a place that you trust.
    """
    if digest is not None and digest not in DIGESTS:
        raise InputError(Problem("digest", shorten(digest), f"{' or '.join(DIGESTS)}, or nothing"))
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
            if record.files is not None:
                problems += differences(record.files, files_beside(folder), folder)
            problems += absent(record, stored, folder)
        for name, tensor in stored.items():
            problems += content(name, tensor, record, folder)
            progress(tensor.end - tensor.begin, whole)
    except (CheckpointError, SpecError) as error:
        problems += (problem for problem in error.problems if problem not in problems)
    parameters = sum((tensor.end - tensor.begin) // tensor.dtype.itemsize for tensor in stored.values())
    digests = {name: digest_of(folder / name) for name in model_files(folder)} if digest else {}
    return Verification(folder, len(stored), parameters, record is not None, tuple(problems), digests)


def weights_twice(folder: Path) -> Iterator[Problem]:
    """Shards beside the single file: which of them a program reads is its own choice."""
    if present(folder / SINGLE) and present(folder / INDEX):
        named = read_json(folder / INDEX).get("weight_map")
        if not isinstance(named, dict) or set(map(str, named.values())) != {SINGLE}:
            found = f"{INDEX}, which names other files, beside {SINGLE}"
            yield Problem(str(folder), found, "the weights once", "Remove what is not the model's.")


def differences(wanted: Mapping[str, object], found: Mapping[str, str], folder: Path) -> Iterator[Problem]:
    """Files beside the weights that are not what was recorded."""
    for name in sorted(found.keys() | wanted.keys()):
        if name not in found:
            yield Problem(f"{folder / name}", "no such file", f"the one in {PROVENANCE}")
        elif name not in wanted:
            yield Problem(f"{folder / name}", "a file that was added", f"only those in {PROVENANCE}")
        elif found[name] != wanted[name]:
            yield Problem(f"{folder / name}", f"the SHA-256 {found[name]}", f"{shorten(wanted[name])}, as in {PROVENANCE}")


def absent(record: Record, stored: Mapping[str, StoredTensor], folder: Path) -> Iterator[Problem]:
    for name in sorted(record.checksums.keys() - stored.keys()):
        wanted = f"one with the checksum {shorten(record.checksums[name])}, as in {PROVENANCE}"
        yield Problem(f"{folder}: {name}", "no such tensor", wanted)


def content(name: str, tensor: StoredTensor, record: Record | None, folder: Path) -> Iterator[Problem]:
    """What is wrong with a tensor's dtype, shape and bytes by the record, and with its values; read once, in pieces."""
    total, count = Checksum(), 0
    for piece in tensor.pieces():
        total.add(piece.view(-1).view(torch.uint8).numpy().data)
        if not finite(piece):
            count += int((~piece.isfinite()).sum())
    if count:
        yield Problem(tensor.place, f"{count} values that are NaN or infinite", "finite weights")
    if record is not None:
        for what, wanted, found in record.of(name, str(total), tensor.dtype, tensor.shape):
            if found != wanted:
                yield Problem(f"{folder}: {name}", f"the {what} {found}", f"{shorten(wanted)}, as in {PROVENANCE}")
