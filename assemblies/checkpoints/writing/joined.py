"""Joining tensors of ours that a family stores as one."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from pairform.assemblies.checkpoints.reading.fused_tensors import fused_shape
from pairform.assemblies.checkpoints.writing.shards import Entry
from pairform.assemblies.families.family import Family, Fused
from pairform.assemblies.specs.model import ModelSpec
from pairform.registry import OutputError, Problem

ONE_DTYPE = "Load the model with one dtype (load(..., dtype=torch.bfloat16)) and save it."


def joined(entries: Sequence[Entry], family: Family, spec: ModelSpec) -> list[Entry]:
    """All tensors of a model as a family's files have them.

    Raises:
        OutputError: parts of one tensor differ in dtype.
        SpecError: the family has no name for a tensor.
    """
    by_name = {entry.name: entry for entry in entries}
    made: dict[str, Entry] = {}
    for entry in entries:
        row = family.holder(entry.name, spec)
        if row.theirs not in made:
            parts = [[by_name[name] for name in group] for group in row.parts(by_name)] if isinstance(row, Fused) else []
            made[row.theirs] = join(row, parts) if isinstance(row, Fused) else replace(entry, name=row.theirs)
    doubles = {} if family.doubles is None else family.doubles(spec)
    made |= {copy: replace(made[name], name=copy) for copy, name in doubles.items()}
    for name, values in ({} if family.constants is None else family.constants(spec)).items():
        made[name] = constant(name, values, entries[0].dtype)
    return list(made.values())


def constant(name: str, values: Tensor, dtype: torch.dtype) -> Entry:
    return Entry(name, dtype, tuple(values.shape), lambda: [values.to(dtype)])


def join(fused: Fused, parts: list[list[Entry]]) -> Entry:
    """The stored tensor that consists of `parts`."""
    flat = [entry for group in parts for entry in group]
    dtypes = sorted({str(entry.dtype) for entry in flat})
    if len(dtypes) > 1:
        found = f"parts of several dtypes: {', '.join(dtypes)}"
        raise OutputError(Problem(fused.theirs, found, "one dtype: transformers stores them as one tensor", ONE_DTYPE))
    shape = fused_shape([[entry.shape for entry in group] for group in parts], fused)
    if fused.transposed and len(flat[0].shape) > 1:
        return Entry(fused.theirs, flat[0].dtype, shape, lambda: map(transposed, parts))
    return Entry(fused.theirs, flat[0].dtype, shape, lambda: chained(flat))


def chained(entries: Sequence[Entry]) -> Iterator[Tensor]:
    for entry in entries:
        yield from entry.pieces()


def transposed(entries: Sequence[Entry]) -> Tensor:
    """The columns of these tensors, beside each other."""
    rows = torch.cat([piece.reshape(-1) for piece in chained(entries)])
    return rows.view(-1, *entries[0].shape[1:]).transpose(-1, -2).contiguous()
