"""Initial values of parameters, which depend only on a seed and the tensor's name."""

import hashlib
from collections.abc import Iterator
from math import prod

import torch
from torch import Tensor

from pairform.blocks.functional.initializers import Constant, Normal

CHUNK = 1 << 20
"""Elements drawn from one generator. Each chunk has its own, so that any part of a tensor can be drawn alone."""


def chunks(
    initial: Constant | Normal, name: str, count: int, dtype: torch.dtype, seed: int, begin: int = 0
) -> Iterator[Tensor]:
    """Elements `begin` to `count` of the flat tensor called `name`, at most `CHUNK` at a time."""
    # a chunk is always drawn from its beginning, also if only its end is needed
    for start in range(begin - begin % CHUNK, count, CHUNK):
        size = min(CHUNK, count - start)
        if isinstance(initial, Constant):
            values = torch.full((size,), initial.value)
        else:
            key = hashlib.sha256(f"{seed}/{name}/{start // CHUNK}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(key[:8], "little", signed=True))
            # in float32, and rounded after: models of all dtypes start from the same numbers
            values = torch.randn(size, generator=generator) * initial.std
        yield values[max(begin - start, 0) :].to(dtype)


def draw(initial: Constant | Normal, name: str, shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> Tensor:
    """The whole tensor."""
    return torch.cat([*chunks(initial, name, prod(shape), dtype, seed)]).reshape(shape)
