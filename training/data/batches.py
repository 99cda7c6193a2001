"""Examples, pairs of a source and a target, and the batches that a model reads."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from pairform.assemblies.specs.model import ModelSpec
from pairform.blocks.heads.linear_cross_entropy import IGNORED
from pairform.registry import Problem

Example = tuple[list[int], list[int]]
"""Tokens of the source, and of the target up to its end token."""
Lengths = tuple[int, int]
"""How many tokens a source and a target have."""
MOST_TOKENS = 1 << 22
"""Of a batch, and of the examples that trials are measured on, at the longest lengths: both are held in memory whole."""
MOST_IDS = 1 << 21
"""The largest vocabulary of a study; the largest that is in use has about 2**18 ids."""
TRAINING, VALIDATION = 1, 2
"""The first of the numbers that random draws depend on: what is drawn for one purpose is not drawn again for another."""


class Examples(Protocol):
    """What a trial learns from."""

    @property
    def lengths(self) -> Lengths:
        """Those of the longest batch, as `longest` finds them."""
        ...

    @property
    def measured(self) -> int:
        """How many examples trials are measured on, at most."""
        ...

    def train(self, seed: int, step: int, count: int) -> list[Example]:
        """The batch of a step: it depends on these numbers alone, so that each variant reads the same ones."""
        ...

    def validation(self) -> list[Example]:
        """The same examples for every trial, none of which is trained on but by chance."""
        ...


class Contents(Protocol):
    """What data holds, read once for all variants: nothing is wrong with it whatever the model."""

    @property
    def digests(self) -> dict[str, str]:
        """The SHA-256 of each file that was read, by its path from the study's folder on."""
        ...

    def open(self, spec: ModelSpec) -> Examples:
        """In a model's ids; a vocabulary that is too small raises `SpecError`."""
        ...


@dataclass(frozen=True)
class Ids:
    """Which ids of a model's vocabulary mean what. `free` are those without a special meaning, in order."""

    pad: int
    start: int
    end: int
    free: tuple[int, ...]

    @classmethod
    def of(cls, spec: ModelSpec) -> "Ids":
        """Those of a spec that `check_spec` finds nothing wrong with."""
        tokens = spec.tokens
        assert tokens.pad is not None, "checked before"
        first = start(spec)
        special = {first, *(token for part in spec.stacks for _, token in spec.tokens_of(part).named())}
        smallest = min(spec.vocabulary_of(part) for part in spec.stacks)
        free = tuple(token for token in range(smallest) if token not in special)
        return cls(tokens.pad, first, tokens.ends[0], free)


def check_spec(spec: ModelSpec) -> Iterator[Problem]:
    """What keeps a model from learning targets from sources."""
    if spec.decoder is None:
        yield Problem("assembly", repr(spec.assembly), "encoder_decoder or decoder_only: a study's models write a target")
    elif spec.head.name != "lm":
        yield Problem("head.name", repr(spec.head.name), "lm: a study's models write a target")
    if spec.vocabulary > MOST_IDS:
        yield Problem("vocabulary", f"{spec.vocabulary:,}", f"at most {MOST_IDS:,} in a study")
    missing = {
        "tokens.pad": spec.tokens.pad is None,
        "tokens.bos": spec.tokens.first is None,
        "tokens.eos": not spec.tokens.ends,
        "encoder.tokens.pad": any(spec.tokens_of(part).pad is None for part in spec.stacks) and spec.tokens.pad is not None,
    }
    for where, lacks in missing.items():
        if lacks:
            yield Problem(where, "nothing", "a token's id: batches of sources and targets need it")


def generator(*numbers: int) -> np.random.Generator:
    """Random numbers that depend on `numbers` alone, on every machine."""
    return np.random.default_rng(numbers)


def check_lengths(examples: Examples, batch: int) -> Iterator[Problem]:
    """Whether a batch, and the examples to measure on, can be held in memory."""
    source, target = examples.lengths
    for where, count in (("training.batch", batch), ("data.validation", examples.measured)):
        if count * (source + target) > MOST_TOKENS:
            found = f"{count:,} examples of up to {source:,} + {target:,} tokens"
            most = MOST_TOKENS // (source + target)
            expected = f"at most {most:,} of them" if most else "shorter ones"
            yield Problem(where, found, f"{expected}: {MOST_TOKENS:,} tokens")


def longest(spec: ModelSpec, lengths: Iterable[Lengths]) -> Lengths:
    """Of a model's longest batch, where examples have these lengths: an encoder-decoder pads sources and targets each by
    themselves; a decoder alone reads both as one text, so the longest text decides."""
    found = list(lengths)
    if spec.encoder is None:
        return max(found, key=lambda each: (sum(each), each))
    return max(source for source, _ in found), max(target for _, target in found)


def lengths_read(spec: ModelSpec, lengths: Lengths) -> Lengths:
    """What `inspect` counts at these lengths of source and target: tokens of encoder and decoder. A decoder alone reads the
    source, a start token and the target; nothing reads the first number then."""
    return lengths if spec.encoder is not None else (1, lengths[0] + 1 + lengths[1])


def prompt(source: Sequence[int], spec: ModelSpec) -> list[int]:
    """What a model reads before it writes: a decoder alone reads the source up to the target's start token."""
    return list(source) if spec.encoder is not None else [*source, start(spec)]


def start(spec: ModelSpec) -> int:
    assert spec.tokens.first is not None, "checked before"
    return spec.tokens.first


def collate(examples: Sequence[Example], spec: ModelSpec) -> dict[str, Tensor]:
    """The arguments of a model's forward pass, `[batch, length]`, padded on the right.

    A decoder-only model reads source, start token and target as one text, and is asked for the target alone.
    """
    rows = [prompt(source, spec) for source, _ in examples]
    labels = [target for _, target in examples]
    if spec.encoder is None:
        labels = [[IGNORED] * len(row) + target for row, target in zip(rows, labels, strict=True)]
        rows = [row + target for row, (_, target) in zip(rows, examples, strict=True)]
    pad = spec.tokens_of(next(iter(spec.stacks))).pad
    assert pad is not None, "checked before"
    read = padded(rows, pad)
    lengths = torch.tensor([len(row) for row in rows])
    mask = torch.arange(read.shape[1]) < lengths[:, None]
    return {"input_ids": read, "attention_mask": mask, "labels": padded(labels, IGNORED)}


def padded(rows: Sequence[Sequence[int]], filler: int) -> Tensor:
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[filler] * (longest - len(row))] for row in rows])
