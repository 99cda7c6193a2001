"""Write a full-size checkpoint folder with random weights, streaming.

python -m benchmarks.sources FOLDER PRESET SEED
"""

import sys
from collections.abc import Iterator
from functools import partial
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from pairform import load_spec
from pairform.assemblies.checkpoints.writing.output import Output
from pairform.assemblies.checkpoints.writing.shards import Entry
from pairform.assemblies.modeling.build import skeleton

POOL = 1 << 25
"""Random elements drawn once; tensors are cut from them at places of their own."""


def random_pieces(pool: Tensor, begin: int, count: int) -> Iterator[Tensor]:
    """`count` elements of a pool of random ones, from `begin` on and again from the pool's start."""
    while count:
        piece = pool[begin : begin + count]
        yield piece
        begin, count = 0, count - piece.numel()


def write_source(folder: Path, preset: str, *, seed: int, dtype: torch.dtype = torch.bfloat16) -> int:
    """Write a folder in the transformers format with a preset's shapes; returns the size of its weights in bytes."""
    spec = load_spec(preset)
    generator = torch.Generator().manual_seed(seed)
    pool = (torch.randn(POOL, generator=generator) * spec.initializer_range).to(dtype)
    begins = torch.randint(POOL, (10_000,), generator=generator).tolist()
    entries = [
        Entry(name, dtype, tuple(parameter.shape), partial(random_pieces, pool, begins[index], prod(parameter.shape)))
        for index, (name, parameter) in enumerate(skeleton(spec).named_parameters())
    ]
    return Output(folder, "transformers").write(spec, entries, {"origin": "benchmark", "seed": seed})


if __name__ == "__main__":
    write_source(Path(sys.argv[1]), sys.argv[2], seed=int(sys.argv[3]))
