"""The teacher of a run: whether it fits the model and the data, checked before any weight is read, and its fingerprint."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pairform.assemblies.checkpoints.reading.checkpoint import Checkpoint, open_checkpoint
from pairform.assemblies.checkpoints.reading.safetensors_file import tensor_bytes
from pairform.assemblies.checkpoints.writing.companions import TOKENIZER
from pairform.assemblies.preprocessing.tokenizers import parsed_tokenizer
from pairform.assemblies.specs.model import ModelSpec
from pairform.registry import CheckpointError, OutputError, Problem, SpecError, read_json, shorten
from pairform.registry.run_folders import write_json
from pairform.training.data.batches import Ids, check_spec
from pairform.training.data.tokenizer_files import read_tokenizer_file
from pairform.training.data.tokens import open_tokens

TEACHER = "teacher.json"
"""The file in a run's folder that identifies its teacher."""
FIELD = "distillation.teacher"


@dataclass(frozen=True)
class FoundTeacher:
    """A teacher that fits. fingerprint: of its architecture and of a row of each of its tensors."""

    folder: Path
    fingerprint: str


def find_teacher(ref: str, spec: ModelSpec, of_data: Path | None, of_model: Path | None, run: Path) -> FoundTeacher:
    """The teacher in a folder or hub repository.

    Args:
        ref: The folder or hub id.
        spec: The model that it teaches.
        of_data: The tokenizer file of the data; None: its tokens are bytes.
        of_model: The tokenizer file of the model; None: it has none.
        run: The folder of the run, which may have begun with another teacher.

    Raises:
        PairformError: it cannot be read, or does not fit, with all problems; or the run began with another.
    """
    try:
        checkpoint = open_checkpoint(ref)
    except CheckpointError as error:
        raise CheckpointError([problem.inside(FIELD) for problem in error.problems]) from None
    problems = [*check_teacher(checkpoint.spec, spec)]
    if not problems:
        problems = [*check_tokens(checkpoint, spec, of_data, of_model)]
    if problems:
        raise SpecError(problems)
    found = FoundTeacher(checkpoint.folder, fingerprint(checkpoint))
    if (run / TEACHER).is_file() and read_json(run / TEACHER).get("fingerprint") != found.fingerprint:
        remedy = "Restore the teacher, or choose another folder with --out."
        raise OutputError(Problem(str(run), "a run with a teacher of other weights", f"those now in {shorten(ref)}", remedy))
    return found


def check_teacher(teacher: ModelSpec, spec: ModelSpec) -> Iterator[Problem]:
    """Why a teacher does not fit a model."""
    if spec.assembly != "encoder_decoder":
        yield Problem("distillation", f"a model of the assembly {spec.assembly}", "an encoder-decoder to teach")
        return
    if teacher.decoder is None:
        yield Problem(FIELD, f"a model of the assembly {teacher.assembly}", "encoder_decoder or decoder_only")
        return
    if teacher.head.name != "lm":
        yield Problem(FIELD, f"the head {teacher.head.name!r}", "the head lm: it predicts tokens")
    if teacher.encoder is None and teacher.decoder.prefixed:
        yield Problem(FIELD, "a mask with `prefix`", "none: rows hold several texts, whose prefixes are not masked")
    for part in spec.stacks:
        size, wanted = teacher.vocabulary_of(part if part in teacher.stacks else "decoder"), spec.vocabulary_of(part)
        if size != wanted:
            yield Problem(FIELD, f"a vocabulary of {size:,}", f"{wanted:,}, as of the model's {part}")
    if teacher.encoder is not None:
        yield from (problem.inside(FIELD) for problem in check_spec(teacher))
    ends = teacher.tokens.ends
    if spec.tokens.ends and spec.tokens.ends[0] not in ends:
        found = f"the end-of-sequence tokens {', '.join(map(str, ends)) or 'none'}"
        yield Problem(FIELD, found, f"{spec.tokens.ends[0]} among them, with which targets end")


def check_tokens(checkpoint: Checkpoint, spec: ModelSpec, of_data: Path | None, of_model: Path | None) -> Iterator[Problem]:
    """Where token ids mean something else to the teacher."""
    own, theirs = checkpoint.folder / TOKENIZER, checkpoint.spec.tokens
    for other in (of_data, of_model):
        if other is not None and own.is_file():
            yield from differing(own, other)
    if of_data is None and theirs.pad is not None and theirs.first is not None:
        of_bytes = [open_tokens(Ids.of(each), None).bytes_ for each in (checkpoint.spec, spec)]
        if of_bytes[0] != of_bytes[1]:
            yield Problem(FIELD, "other special tokens", "the model's, since bytes have the lowest ids of all others")


def differing(own: Path, other: Path) -> Iterator[Problem]:
    """The first token id that two tokenizers use for different tokens."""
    contents = [read_tokenizer_file(file, FIELD) for file in (own, other)]
    if contents[0] == contents[1]:
        return
    mine, wanted = (parsed_tokenizer(content, FIELD).get_vocab() for content in contents)
    if mine != wanted:
        name = min(mine.items() ^ wanted.items(), key=lambda item: (item[1], item[0]))[0]
        found = f"the tokenizer {own}, where {shorten(name)} is {mine.get(name, 'no token')}"
        yield Problem(FIELD, found, f"that of {other}, where it is {wanted.get(name, 'no token')}")


def fingerprint(checkpoint: Checkpoint) -> str:
    """A digest of the spec and of the first row of every tensor: other weights have other ones."""
    digest = hashlib.sha256(json.dumps(checkpoint.spec.document(), sort_keys=True).encode())
    for name, tensor in sorted(checkpoint.tensors.items()):
        digest.update(f"{name} {list(tensor.shape)} {tensor.dtype}".encode())
        for piece in tensor.pieces(stop=1):
            digest.update(tensor_bytes(piece.contiguous()))
    return digest.hexdigest()


def record_teacher(run: Path, teacher: FoundTeacher) -> None:
    """Write which teacher a run has."""
    document: dict[str, Any] = {"folder": str(teacher.folder), "fingerprint": teacher.fingerprint}
    write_json(run / TEACHER, document)
