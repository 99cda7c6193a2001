"""Tensors that a family's files may lack."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pairform.assemblies.checkpoints.reading.safetensors_file import CheckpointTensor


@dataclass(frozen=True)
class ZeroTensor(CheckpointTensor):
    """A tensor of zeros in a checkpoint whose files lack it. folder: that of the files."""

    folder: str

    @property
    def place(self) -> str:
        return f"{self.folder}: {self.name}"

    def read(self) -> Tensor:
        return torch.zeros(self.shape, dtype=self.dtype)

    def pieces(self, rows: int | None = None, stop: int | None = None, start: int = 0) -> Iterator[Tensor]:
        yield from torch.split(self.read()[start:stop], rows or max(1, self.shape[0]))
