"""Executing a plan: a stream of tensors from the sources to a new folder. `convert` plans and executes in one call."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from einops import rearrange, reduce, repeat
from torch import Tensor

from pairform.assemblies.checkpoints.reading.checkpoint import Checkpoint, open_checkpoint
from pairform.assemblies.checkpoints.reading.hub import local_folder
from pairform.assemblies.checkpoints.reading.load_spec import Ref
from pairform.assemblies.checkpoints.reading.safetensors_file import CheckpointTensor
from pairform.assemblies.checkpoints.writing.companions import companions
from pairform.assemblies.checkpoints.writing.finite import cast, check_finite
from pairform.assemblies.checkpoints.writing.folder import check_target
from pairform.assemblies.checkpoints.writing.output import Format, Output
from pairform.assemblies.checkpoints.writing.shards import Entry, Progress, silent
from pairform.assemblies.initialisation.options import Options, read_options
from pairform.assemblies.initialisation.plan import (
    Fresh,
    MeanHeads,
    Operation,
    Parts,
    Plan,
    RepeatHeads,
    Role,
    Rows,
    ScaledRow,
    TargetRow,
    VocabularyRow,
    VocabularyRows,
)
from pairform.assemblies.initialisation.planning import open_sources, plan_of
from pairform.assemblies.initialisation.vocabulary.change import tokenizer_files
from pairform.assemblies.modeling.build import parameters_of
from pairform.assemblies.modeling.random_init import chunks
from pairform.blocks.functional.dtypes import wide
from pairform.blocks.functional.initializers import Constant, Normal
from pairform.registry import CheckpointError, InputError, Problem, SpecError, shorten


@dataclass(frozen=True)
class ConvertReport:
    """What `convert` did.

    Attributes:
        out: the new folder.
        plan: where each tensor came from.
        bytes: of the weights.
        seconds: wall-clock time.
    """

    out: Path
    plan: Plan
    bytes: int
    seconds: float


def convert(
    *,
    out: str | Path,
    encoder: str | Path | None = None,
    decoder: str | Path | None = None,
    vision: str | Path | None = None,
    spec: Ref | None = None,
    patch: Mapping[str, Any] | None = None,
    options: Options | None = None,
    revisions: Mapping[str, str] | None = None,
    format: Format = "pairform",
    max_shard_size: int | str = "5GB",
    overwrite: bool = False,
    progress: Progress = silent,
    **fields: Any,
) -> ConvertReport:
    """Initialise a new model from checkpoints and write it. Memory does not grow with the model.

    Args:
        out: a new or empty folder; it appears whole or not at all.
        encoder, decoder, vision, spec, patch, options, revisions, fields: as for `plan`.
        format: "pairform", or "transformers".
        max_shard_size: of each weight file, in bytes or as "5GB".
        overwrite: replace a model in `out`.
        progress: called with the bytes just written and the bytes in all.

    Raises:
        SpecError: as for `plan`, or transformers cannot express the spec.
        CheckpointError: as for `plan`, or values of a source are not finite.
        OutputError: `out` cannot be written.
    """
    begin = time.perf_counter()
    refs: dict[Role, str | Path | None] = {"encoder": encoder, "decoder": decoder, "vision": vision}
    check_target(out, overwrite, tuple(folder for ref in refs.values() if (folder := local_folder(ref)) is not None))
    read = read_options(options, fields)
    sources = open_sources(refs, revisions)
    plan = plan_of(sources, refs, spec, patch, read)
    written = write_plan(plan, sources, Output(out, format, max_shard_size, overwrite, progress))
    return ConvertReport(Path(out), plan, written, time.perf_counter() - begin)


def execute(
    plan: Plan,
    out: str | Path,
    *,
    format: Format = "pairform",
    max_shard_size: int | str = "5GB",
    overwrite: bool = False,
    progress: Progress = silent,
) -> int:
    """Write a planned model. Equal plans and sources give equal tensors, whatever the shard size.

    Args:
        plan: from `plan`, or read from JSON with `Plan.read`. Its sources are opened again.
        out, format, max_shard_size, overwrite, progress: as for `convert`.

    Returns:
        The number of bytes of the weights.

    Raises:
        InputError: `plan` is no plan.
        SpecError: the plan does not make the tensors of its spec, or transformers cannot express the spec.
        CheckpointError: the sources cannot be read, or are not those that the plan was made for.
        OutputError: `out` cannot be written.
    """
    if not isinstance(plan, Plan):
        raise InputError(Problem("plan", shorten(plan), "a plan, as pairform.plan makes it"))
    check_rows(plan)
    checkpoints = {role: open_checkpoint(source.path, revision=source.revision) for role, source in plan.sources.items()}
    return write_plan(plan, checkpoints, Output(out, format, max_shard_size, overwrite, progress))


def write_plan(plan: Plan, checkpoints: Mapping[Role, Checkpoint], output: Output) -> int:
    """As `execute`, from open checkpoints by their roles."""
    vocabularies = {role: change.rows for role, change in plan.vocabularies.items()}
    entries = [entry(row, checkpoints, plan.options.seed, vocabularies) for row in plan.targets]
    made = {role: tokenizer_files(checkpoints[role], change) for role, change in plan.vocabularies.items()}
    return output.write(plan.spec, entries, provenance(plan), companions(checkpoints, made))


def check_rows(plan: Plan) -> None:
    """Check that the rows of a plan, which may have been edited, are still the tensors of its spec."""
    wanted = {name: parameter.shape for name, parameter in parameters_of(plan.spec).items()}
    planned = {row.target: row.shape for row in plan.targets}
    found = [
        Problem(f"plan: {name}", f"the shape {planned.get(name)}", f"{wanted.get(name)}, as in the plan's spec")
        for name in sorted(wanted.keys() | planned.keys())
        if wanted.get(name) != planned.get(name)
    ]
    if len(planned) < len(plan.targets):
        found.append(Problem("plan", "a target twice", "each once"))
    if found:
        raise SpecError(found)


def entry(
    row: TargetRow,
    checkpoints: Mapping[Role, Checkpoint],
    seed: int,
    vocabularies: Mapping[Role, Sequence[VocabularyRow]] = MappingProxyType({}),
) -> Entry:
    """A row's tensor, to be written. vocabularies: by source, the old rows of each row of a new vocabulary."""
    dtype: torch.dtype = getattr(torch, row.dtype)
    operation = row.operation
    if isinstance(operation, Fresh):
        initial, count = operation.initial, prod(row.shape)
        return Entry(row.target, dtype, row.shape, lambda: chunks(initial, row.target, count, dtype, seed))
    assert row.source is not None, "all other operations have a source"
    checkpoint = checkpoints.get(row.source.role)
    stored = checkpoint.tensors.get(row.source.tensor) if checkpoint else None
    if stored is None:
        raise CheckpointError(Problem(str(row.source), "no such tensor", "the sources that the plan was made for"))
    if not operation.fits(stored.shape, row.shape):
        found = f"the shape {list(stored.shape)}"
        raise CheckpointError(Problem(str(row.source), found, f"what gives {list(row.shape)} by {operation.summary}"))
    if isinstance(operation, VocabularyRows):
        rows = vocabularies.get(row.source.role, ())
        if len(rows) != row.shape[0] or max(map(max, filter(None, rows)), default=0) >= stored.shape[0]:
            found = f"a new vocabulary of {len(rows):,} rows"
            raise CheckpointError(Problem(str(row.source), found, f"{row.shape[0]:,} of rows below {stored.shape[0]:,}"))
        initial = operation.initial
        return Entry(row.target, dtype, row.shape, lambda: vocabulary_rows(row, rows, stored, initial, dtype, seed))
    return Entry(row.target, dtype, row.shape, lambda: make_pieces(row, stored, dtype, seed))


def make_pieces(row: TargetRow, stored: CheckpointTensor, dtype: torch.dtype, seed: int) -> Iterator[Tensor]:
    """The pieces of a target tensor, in order.

    Raises: CheckpointError: values of the source are not finite, or beyond the range of `dtype`.
    """
    operation = row.operation
    if isinstance(operation, Rows):
        for rows in finite_pieces(stored, stop=operation.kept):
            yield cast(rows, dtype, stored.place)
        # new rows have the values that a new model of this size has in them, however many rows were kept
        kept = operation.kept * prod(row.shape[1:])
        yield from chunks(operation.initial, row.target, prod(row.shape), dtype, seed, begin=kept)
        return
    for piece in apply(operation, stored):
        yield cast(piece, dtype, stored.place)


def vocabulary_rows(
    row: TargetRow,
    rows: Sequence[VocabularyRow],
    stored: CheckpointTensor,
    initial: Constant | Normal,
    dtype: torch.dtype,
    seed: int,
) -> Iterator[Tensor]:
    """The rows of a new vocabulary, in order: runs of neighbours are copied at once."""
    width = prod(row.shape[1:])
    place = 0
    while place < len(rows):
        old = rows[place]
        end = place + 1
        if len(old) == 1:
            while end < len(rows) and rows[end] == (old[0] + end - place,):
                end += 1
            pieces: Iterable[Tensor] = finite_pieces(stored, start=old[0], stop=old[0] + end - place)
        elif old:
            parts = [piece for each in old for piece in finite_pieces(stored, start=each, stop=each + 1)]
            pieces = [wide(torch.cat(parts)).mean(0)]
        else:
            pieces = chunks(initial, row.target, end * width, dtype, seed, begin=place * width)
        for piece in pieces:
            yield cast(piece, dtype, stored.place)
        place = end


def apply(operation: Operation, stored: CheckpointTensor) -> Iterator[Tensor]:
    """Apply an operation to a source tensor. The result has the source's dtype or a wider one."""
    if isinstance(operation, MeanHeads):
        group = operation.group
        # the rows of one group at a time
        for heads in finite_pieces(stored, operation.head_dim * group):
            # averaged in at least float32, and rounded once, by `cast`
            grouped = rearrange(heads, "(h d) ... -> h d ...", h=group)
            yield reduce(wide(grouped), "h d ... -> d ...", "mean")
    elif isinstance(operation, RepeatHeads):
        for head in finite_pieces(stored, operation.head_dim):
            yield repeat(head, "d ... -> (t d) ...", t=operation.times)
    elif isinstance(operation, ScaledRow):
        for rows in finite_pieces(stored, start=operation.row, stop=operation.row + 1):
            yield rows * torch.tensor(operation.factor, dtype=rows.dtype)
    elif isinstance(operation, Parts) and operation.axis == 0:
        for part in operation.kept:
            yield from finite_pieces(stored, start=part * operation.size, stop=(part + 1) * operation.size)
    elif isinstance(operation, Parts):
        for rows in finite_pieces(stored):
            yield rearrange(rows, "r (l d) -> r l d", d=operation.size)[:, list(operation.kept)].flatten(1)
    else:
        yield from finite_pieces(stored)


def finite_pieces(
    stored: CheckpointTensor, rows: int | None = None, stop: int | None = None, start: int = 0
) -> Iterator[Tensor]:
    for piece in stored.pieces(rows, stop, start):
        check_finite(piece, stored.place)
        yield piece


def provenance(plan: Plan) -> dict[str, Any]:
    """The origin of the weights, without anything that differs between equal runs."""
    document = plan.document()
    return {
        "origin": "carry" if "model" in plan.sources else "convert",
        **{field: document[field] for field in ("sources", "options", "targets", "edits", "vocabularies") if field in document},
        "totals": plan.totals,
    }
