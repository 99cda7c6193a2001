"""The tensors of a plan, made of the sources' in pieces."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import prod
from types import MappingProxyType

import torch
from einops import rearrange, reduce, repeat
from torch import Tensor

from pairform.assemblies.checkpoints.reading.checkpoint import Checkpoint
from pairform.assemblies.checkpoints.reading.safetensors_file import CheckpointTensor
from pairform.assemblies.checkpoints.writing.finite import cast, check_finite
from pairform.assemblies.checkpoints.writing.shards import Entry
from pairform.assemblies.initialisation.operations import (
    Fresh,
    MeanHeads,
    Operation,
    Parts,
    RepeatHeads,
    Rows,
    ScaledRow,
    VocabularyRows,
)
from pairform.assemblies.initialisation.plan import Role, TargetRow, VocabularyRow
from pairform.assemblies.modeling.random_init import chunks
from pairform.blocks.functional.dtypes import wide
from pairform.blocks.functional.initializers import Constant, Normal
from pairform.registry import CheckpointError, Problem


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
