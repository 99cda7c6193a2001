"""Pairs of a source and a target from JSONL files: translations, questions and answers, summaries."""

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, Strict

from pairform.assemblies.specs.model import ModelSpec
from pairform.registry import PositiveInt, Problem, SpecError
from pairform.training.data.batches import TRAINING, VALIDATION, Example, Lengths, generator, longest
from pairform.training.data.file_data import FileData, Files
from pairform.training.data.files import Allowance, read_lines, text_at
from pairform.training.data.text_encoding import TextEncoding

Longest = Annotated[tuple[PositiveInt, PositiveInt], Strict(False)]


@dataclass(frozen=True)
class Pair:
    """The texts of a line. where: its file and line number, for errors."""

    where: str
    source: str
    target: str


class Pairs(FileData):
    """Pairs of a source and a target, from JSONL files."""

    name: Literal["pairs"]
    source: str = Field(default="source", description="Field of each line with the source text.")
    target: str = Field(default="target", description="Field of each line with the target text.")
    lengths: Longest = Field(
        default=(128, 128),
        description="Longest source and target in tokens, the target's end token included; longer ones are truncated.",
    )
    validation: PositiveInt = Field(default=256, description="Largest number of held-out pairs for validation.")

    def gather(self, folder: Path) -> "PairFiles":
        """The pairs of all files; `SpecError` for missing, empty and unreadable ones."""
        files = self.find(folder)
        return PairFiles(self, files, files.read(self.pairs_of))

    def pairs_of(self, file: Path, allowance: Allowance) -> list[Pair]:
        return [
            Pair(where, *(text_at(where, line, name) for name in (self.source, self.target)))
            for where, line in read_lines(file, allowance)
        ]


class PairFiles:
    """Training and held-out pairs, as text."""

    def __init__(self, spec: Pairs, files: Files, pairs: tuple[list[Pair], list[Pair]]) -> None:
        self.spec, self.files, self.pairs = spec, files, pairs
        self.digests = files.digests
        self.examples = functools.cache(self.encoded)

    def open(self, spec: ModelSpec) -> "PairExamples":
        """The pairs in a model's token ids; `SpecError` if it has too few, or a source has no token."""
        train, held_out, lengths = self.examples(TextEncoding.of(spec, self.files))
        order = generator(VALIDATION).permutation(len(held_out))[: self.spec.validation]
        validation = [held_out[index] for index in order]
        return PairExamples(train, validation, longest(spec, lengths | lengths_of(validation)))

    def encoded(self, encoding: TextEncoding) -> tuple[list[Example], list[Example], set[Lengths]]:
        """Training examples, held-out ones, and the lengths of the first."""
        train, held_out = ([self.example(pair, encoding) for pair in split] for split in self.pairs)
        return train, held_out, lengths_of(train)

    def example(self, pair: Pair, encoding: TextEncoding) -> Example:
        """A truncated target has no end token."""
        longest = self.spec.lengths
        if not (source := encoding.source(pair.source, longest[0])):
            raise SpecError(Problem(f"data: {pair.where}", f"no token in the field {self.spec.source!r}", "at least one"))
        return source, [*encoding.target(pair.target), encoding.end][: longest[1]]


def lengths_of(examples: Iterable[Example]) -> set[Lengths]:
    return {(len(source), len(target)) for source, target in examples}


@dataclass(frozen=True)
class PairExamples:
    """Training pairs drawn uniformly with replacement."""

    pairs: list[Example]
    held_out: list[Example]
    lengths: Lengths

    @property
    def measured(self) -> int:
        return len(self.held_out)

    def train(self, seed: int, step: int, count: int) -> list[Example]:
        return [self.pairs[index] for index in generator(TRAINING, seed, step).integers(0, len(self.pairs), count)]

    def validation(self) -> list[Example]:
        return self.held_out
