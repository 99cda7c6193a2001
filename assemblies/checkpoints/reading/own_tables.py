"""Tables of a model whose configuration ties them, though its file holds two that differ.

Merged adapters with a trained head, for instance, leave such files. Both tables are kept, as in transformers 5; equal ones stay
tied.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from pairform.assemblies.checkpoints.reading.stored import BUFFER, INDEX, SINGLE, StoredTensor, present, stored_tensors
from pairform.assemblies.families.table import Family
from pairform.assemblies.specs.model import ModelSpec
from pairform.registry import CheckpointError, Problem, merge_patch


def with_own_tables(spec: ModelSpec, family: Family, folder: Path) -> ModelSpec:
    """`spec`, untied where the folder's weights are. A folder without readable weights leaves it as it is: whoever loads them
    says what is wrong."""
    if not any(present(folder / name) for name in (SINGLE, INDEX)):
        return spec
    stored: Mapping[str, StoredTensor] = {}
    with suppress(CheckpointError, OSError):
        stored = stored_tensors(folder)
    outside = {name: tensor for name, tensor in stored.items() if ".layers." not in name and ".block." not in name}
    for name, kept in family.copies.items():
        if name in outside and kept in outside and not equal(outside[name], outside[kept]):
            found, expected = f"another table than {kept}", "the same: the model that is built has one for both"
            raise CheckpointError(Problem(outside[name].place, found, expected))
    tables = {family.ours(name): tensor for name, tensor in outside.items() if family.reads(name)}
    patch = dict(patches(spec, tables))
    return ModelSpec.read(merge_patch(spec.document(), patch)) if patch else spec


def patches(spec: ModelSpec, tables: Mapping[str | None, StoredTensor]) -> Iterator[tuple[str, Any]]:
    """What unties a spec. tables: the stored tensors outside layers, by our names."""
    tie = getattr(spec.head, "tie", None)
    if tie is not None and differ(tables, "head.weight", f"{'encoder' if spec.tie_embeddings else tie}.embedding.weight"):
        yield "head", {"tie": None}
    own = [name for name in tables if name is not None and name.startswith("decoder.embedding.")]
    if spec.tie_embeddings and any(differ(tables, name, name.replace("decoder.", "encoder.", 1)) for name in own):
        yield "tie_embeddings", False


def differ(tables: Mapping[str | None, StoredTensor], name: str, tied_to: str) -> bool:
    return name in tables and tied_to in tables and not equal(tables[name], tables[tied_to])


def equal(one: StoredTensor, other: StoredTensor) -> bool:
    """Whether two tensors hold the same numbers, whatever their dtypes. Both are read piece by piece, up to a difference."""
    if one.shape != other.shape:
        return False
    count = (one.shape or (1,))[0]
    rows = max(BUFFER * count // max(one.end - one.begin, other.end - other.begin, 1), 1)
    dtype = torch.promote_types(one.dtype, other.dtype)
    pieces = zip(one.pieces(rows), other.pieces(rows), strict=True)
    return all(torch.equal(mine.to(dtype), theirs.to(dtype)) for mine, theirs in pieces)
