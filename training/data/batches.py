"""Examples, which are pairs of a source and a target, and the batches made of them."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from pairform.assemblies.specs.model import ModelSpec
from pairform.blocks.heads.labels import IGNORED
from pairform.registry import Problem
from pairform.training.data.objectives.base import Example as Example
from pairform.training.data.objectives.base import Lengths as Lengths

MOST_TOKENS = 1 << 22
"""Limit of a batch and of the validation examples at the longest lengths: both are kept in memory."""
MOST_IDS = 1 << 21
"""Largest vocabulary of a study; published models have up to about 2**18 ids."""
TRAINING, VALIDATION, EXAMPLES, MIXTURE, ORDER = 1, 2, 3, 4, 5
"""First numbers of the seeds of `generator`, so that each use draws from a stream of its own: training and validation of
studies; what objectives draw, the mixture of sources and the order of windows of `pairform.training.data.stream`."""


class Examples(Protocol):
    """The data of a trial, in a model's token ids."""

    @property
    def lengths(self) -> Lengths:
        """Lengths of the longest batch, as in `longest`."""
        ...

    @property
    def measured(self) -> int:
        """Largest number of validation examples."""
        ...

    def train(self, seed: int, step: int, count: int) -> list[Example]:
        """The batch of a step, of `count` examples. It depends only on the arguments, so that every variant gets the same."""
        ...

    def validation(self) -> list[Example]:
        """The validation examples, the same for every trial; training examples coincide with them only by chance."""
        ...


class Contents(Protocol):
    """Validated contents of the data, read once for all variants."""

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of each file that was read, by its path relative to the study's folder."""
        ...

    def open(self, spec: ModelSpec) -> Examples:
        """The data in a model's token ids; `SpecError` if its vocabulary is too small."""
        ...


def fingerprint(digests: Mapping[str, str]) -> str:
    """A short digest of all files of the data, recorded in each trial; empty without files."""
    text = "".join(f"{digest} {name}\n" for name, digest in sorted(digests.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16] if digests else ""


@dataclass(frozen=True)
class Ids:
    """Special token ids of a model; `free` are all others, in order.

    A model that generates nothing needs neither `start` nor `end`: without one they are `pad`.
    """

    pad: int
    start: int
    end: int
    free: tuple[int, ...]

    @classmethod
    def of(cls, spec: ModelSpec, part: str | None = None) -> "Ids":
        """The ids of a spec that passed `check_spec`, or of an encoder-only one with a pad token.

        part: a stack with a tokenizer of its own. Default: all stacks read the same tokens.
        """
        tokens = spec.tokens if part is None else spec.tokens_of(part)
        readers = spec.stacks if part is None else (part,)
        assert tokens.pad is not None, "checked by check_spec"
        generates = spec.decoder is not None and part != "encoder"
        first = start(spec) if generates else tokens.pad if tokens.first is None else tokens.first
        special = {first, *(token for each in readers for _, token in spec.tokens_of(each).named())}
        smallest = min(spec.vocabulary_of(each) for each in readers)
        free = tuple(token for token in range(smallest) if token not in special)
        return cls(tokens.pad, first, tokens.ends[0] if tokens.ends else tokens.pad, free)


def check_spec(spec: ModelSpec) -> Iterator[Problem]:
    """Why a model cannot be trained to generate targets from sources."""
    if spec.decoder is None:
        yield Problem("assembly", repr(spec.assembly), "encoder_decoder or decoder_only: a study's models generate a target")
    elif spec.head.name != "lm":
        yield Problem("head.name", repr(spec.head.name), "lm: a study's models generate a target")
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
            yield Problem(where, "nothing", "a token id, needed for batches of sources and targets")


def generator(*numbers: int) -> np.random.Generator:
    """A random generator that depends only on `numbers`, on every machine."""
    return np.random.default_rng(numbers)


def check_lengths(examples: Examples, batch: int) -> Iterator[Problem]:
    """Check that a batch and the validation examples fit in memory."""
    source, target = examples.lengths
    for where, count in (("training.batch", batch), ("data.validation", examples.measured)):
        if count * (source + target) > MOST_TOKENS:
            found = f"{count:,} examples of up to {source:,} + {target:,} tokens"
            most = MOST_TOKENS // (source + target)
            expected = f"at most {most:,} of them" if most else "shorter ones"
            yield Problem(where, found, f"{expected}: {MOST_TOKENS:,} tokens")


def longest(spec: ModelSpec, lengths: Iterable[Lengths]) -> Lengths:
    """Lengths of the longest batch of examples with these lengths.

    An encoder-decoder pads sources and targets separately. A decoder-only model reads both as one text, so the longest text
    decides.
    """
    found = list(lengths)
    if spec.encoder is None:
        return max(found, key=lambda each: (sum(each), each))
    return max(source for source, _ in found), max(target for _, target in found)


def lengths_read(spec: ModelSpec, lengths: Lengths) -> Lengths:
    """Tokens that the encoder and the decoder read of a source and target of these lengths.

    A decoder-only model reads the source, a start token and the target; the first number is then not used.
    """
    return lengths if spec.encoder is not None else (1, lengths[0] + 1 + lengths[1])


def prompt(source: Sequence[int], spec: ModelSpec) -> list[int]:
    """The input of generation: the source, for a decoder-only model followed by the target's start token."""
    return list(source) if spec.encoder is not None else [*source, start(spec)]


def start(spec: ModelSpec) -> int:
    assert spec.tokens.first is not None, "checked by check_spec"
    return spec.tokens.first


def collate(examples: Sequence[Example], spec: ModelSpec, lengths: Lengths | None = None) -> dict[str, Tensor]:
    """The arguments of a model's forward pass, `[batch, length]`, padded on the right.

    A decoder-only model reads source, start token and target as one text; only the target has labels.

    lengths: of the source and target to pad to. Default: the longest of the examples.
    """
    rows = [prompt(source, spec) for source, _ in examples]
    labels = [target for _, target in examples]
    if spec.encoder is None:
        labels = [[IGNORED] * len(row) + target for row, target in zip(rows, labels, strict=True)]
        rows = [row + target for row, (_, target) in zip(rows, examples, strict=True)]
    pad = spec.tokens_of(next(iter(spec.stacks))).pad
    assert pad is not None, "checked by check_spec"
    source, target = (0, 0) if lengths is None else lengths_read(spec, lengths)
    ids = padded(rows, pad, source if spec.encoder is not None else target)
    real = torch.tensor([len(row) for row in rows])
    mask = torch.arange(ids.shape[1]) < real[:, None]
    return {"input_ids": ids, "attention_mask": mask, "labels": padded(labels, IGNORED, target)}


def padded(rows: Sequence[Sequence[int]], filler: int, length: int) -> Tensor:
    """Rows of equal length: that of the longest, and at least `length`."""
    longest = max(length, *(len(row) for row in rows))
    return torch.tensor([[*row, *[filler] * (longest - len(row))] for row in rows])
