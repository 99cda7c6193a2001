"""The parts of stored tensors that hold several of the model's."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from pairform.assemblies.checkpoints.reading.safetensors_file import CheckpointTensor, StoredTensor
from pairform.assemblies.families.family import Fused
from pairform.registry import CheckpointError, Problem

Shape = tuple[int, ...]


@dataclass(frozen=True)
class TransposedPart(CheckpointTensor):
    """Some columns of a stored matrix, as rows."""

    stored: StoredTensor
    column: int

    @property
    def path(self) -> Path:
        return self.stored.path

    @property
    def place(self) -> str:
        return self.stored.place

    def read(self) -> Tensor:
        return self.rows(0, self.shape[0])

    def pieces(self, rows: int | None = None, stop: int | None = None, start: int = 0) -> Iterator[Tensor]:
        """As `CheckpointTensor.pieces`; by default all rows at once. The file is read whole, in pieces."""
        stop = self.shape[0] if stop is None else stop
        if self.nbytes and start < stop:
            yield from torch.split(self.rows(start, stop), rows or stop - start)

    def rows(self, start: int, stop: int) -> Tensor:
        """The columns of the stored matrix that are these rows, in memory of their own."""
        made = torch.empty(stop - start, *self.shape[1:], dtype=self.dtype)
        done = 0
        for piece in self.stored.pieces():
            made[:, done : done + len(piece)] = piece[:, self.column + start : self.column + stop].T
            done += len(piece)
        return made


def fused_shape(shapes: list[list[Shape]], fused: Fused) -> Shape:
    """The shape of the stored tensor whose parts have `shapes`.

    Raises:
        ValueError: no tensor holds such parts.
    """
    first = shapes[0][0]
    each = (sum(shape[0] for shape in shapes[0]), *first[1:])
    if any(sum(shape[0] for shape in one) != each[0] or any(shape[1:] != first[1:] for shape in one) for one in shapes):
        raise ValueError(f"parts of unlike shapes: {shapes}")
    if fused.transposed and len(each) > 1:
        each = (*each[:-2], each[-1], each[-2])
    return (len(shapes), *each) if fused.by_expert or fused.leading else each


def split(tensor: StoredTensor, fused: Fused, shapes: Mapping[str, Shape]) -> dict[str, CheckpointTensor]:
    """The parts of a stored tensor by our names; empty if the model has none of them. No data is read.

    shapes: of all tensors of the model.

    Raises:
        CheckpointError: the stored tensor does not have the shape of its parts together.
    """
    names = fused.parts(shapes)
    if not names or not names[0]:
        return {}
    whole = fused_shape([[shapes[name] for name in group] for group in names], fused)
    if tensor.shape != whole:
        together = ", ".join(f"{name} {list(shapes[name])}" for name in names[0])
        found = f"the shape {list(tensor.shape)}"
        raise CheckpointError(Problem(tensor.place, found, f"{list(whole)}, as the configuration says: {together}"))
    parts: dict[str, CheckpointTensor] = {}
    own = whole[1:] if fused.by_expert or fused.leading else whole
    for number, group in enumerate(names):
        one = tensor.part(number * prod(own), own)
        row = 0
        for name in group:
            shape = shapes[name]
            if fused.transposed and len(shape) > 1:
                parts[name] = TransposedPart(tensor.name, tensor.dtype, shape, one, row)
            else:
                parts[name] = one.part(row * prod(shape[1:]), shape)
            row += shape[0]
    return parts
