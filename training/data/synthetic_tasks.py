"""Synthetic tasks: random sources, and targets computed from them.

Symbol n is the n-th id of the model's vocabulary that is not a special token.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, Strict

from pairform.assemblies.specs.model import ModelSpec
from pairform.registry import PositiveInt, Problem, Spec, SpecError
from pairform.training.data.batches import TRAINING, VALIDATION, Example, Examples, Ids, Lengths, generator

Range = Annotated[tuple[PositiveInt, PositiveInt], Strict(False)]
"""Smallest and largest value."""


class Task(Spec):
    """Base of the tasks."""

    validation: PositiveInt = Field(default=256, description="Number of validation examples.")

    @property
    def needed(self) -> int:
        """Number of symbols that the vocabulary must have."""
        raise NotImplementedError

    @property
    def lengths(self) -> Lengths:
        """Tokens of the longest source, and of the longest target including its end token."""
        raise NotImplementedError

    def draw(self, numbers: np.random.Generator) -> tuple[list[int], list[int]]:
        """Source and target as symbol numbers, without an end token."""
        raise NotImplementedError

    @property
    def digests(self) -> dict[str, str]:
        """No files are read."""
        return {}

    def check(self) -> Iterator[Problem]:
        """What is wrong with the settings."""
        yield from ()

    def gather(self, folder: Path) -> Self:
        problems = list(self.check())
        if problems:
            raise SpecError(problems)
        return self

    def open(self, spec: ModelSpec) -> Examples:
        ids = Ids.of(spec)
        if len(ids.free) < self.needed:
            expected = f"at least {self.needed} ids without a special meaning, for the symbols of the task"
            raise SpecError(Problem("vocabulary", f"{len(ids.free)} ids without a special meaning", expected))
        return TaskExamples(self, ids)


class TaskExamples:
    """Random examples of a task, in a model's token ids."""

    def __init__(self, task: Task, ids: Ids) -> None:
        self.task = task
        self.ids = ids
        self.lengths = task.lengths
        self.measured = task.validation

    def train(self, seed: int, step: int, count: int) -> list[Example]:
        numbers = generator(TRAINING, seed, step)
        return [self.example(numbers) for _ in range(count)]

    def validation(self) -> list[Example]:
        numbers = generator(VALIDATION)
        return [self.example(numbers) for _ in range(self.task.validation)]

    def example(self, numbers: np.random.Generator) -> Example:
        source, target = self.task.draw(numbers)
        return [self.ids.free[symbol] for symbol in source], [*(self.ids.free[symbol] for symbol in target), self.ids.end]


class SequenceTask(Task):
    """A target as long as its source."""

    symbols: PositiveInt = Field(default=16, description="Number of distinct symbols.")
    length: Range = Field(default=(4, 16), description="Shortest and longest source in tokens.")

    @property
    def needed(self) -> int:
        return self.symbols

    @property
    def lengths(self) -> Lengths:
        return self.length[1], self.length[1] + 1

    def source(self, numbers: np.random.Generator) -> list[int]:
        length = int(numbers.integers(self.length[0], self.length[1] + 1))
        return [int(symbol) for symbol in numbers.integers(0, self.symbols, length)]

    def check(self) -> Iterator[Problem]:
        if self.length[0] > self.length[1]:
            yield Problem("data.length", str(list(self.length)), "the shortest length, then the longest")


class Copy(SequenceTask):
    """The target is the source."""

    name: Literal["copy"]

    def draw(self, numbers: np.random.Generator) -> tuple[list[int], list[int]]:
        source = self.source(numbers)
        return source, source


class Reverse(SequenceTask):
    """The target is the source reversed."""

    name: Literal["reverse"]

    def draw(self, numbers: np.random.Generator) -> tuple[list[int], list[int]]:
        source = self.source(numbers)
        return source, source[::-1]


class Sort(SequenceTask):
    """The target is the source's symbols in ascending order."""

    name: Literal["sort"]

    def draw(self, numbers: np.random.Generator) -> tuple[list[int], list[int]]:
        source = self.source(numbers)
        return source, sorted(source)


class Recall(Task):
    """Associative recall: pairs of a key and a value, then one of the keys; the target is its value."""

    name: Literal["associative_recall"]
    keys: PositiveInt = Field(default=16, description="Number of distinct keys.")
    values: PositiveInt = Field(default=16, description="Number of distinct values.")
    pairs: PositiveInt = Field(default=8, description="Pairs per source.")

    @property
    def needed(self) -> int:
        return self.keys + self.values

    @property
    def lengths(self) -> Lengths:
        return 2 * self.pairs + 1, 2

    def draw(self, numbers: np.random.Generator) -> tuple[list[int], list[int]]:
        keys = [int(key) for key in numbers.permutation(self.keys)[: self.pairs]]
        values = [self.keys + int(value) for value in numbers.integers(0, self.values, self.pairs)]
        query = int(numbers.integers(self.pairs))
        pairs = [symbol for pair in zip(keys, values, strict=True) for symbol in pair]
        return [*pairs, keys[query]], [values[query]]

    def check(self) -> Iterator[Problem]:
        if self.pairs > self.keys:
            yield Problem("data.pairs", str(self.pairs), f"at most {self.keys}, the number of keys")


class Lookup(Task):
    """Lookup in a long source: records hidden in `length` symbols of noise, then the key of one; the target is its value.

    Keys are symbols that occur nowhere else.
    """

    name: Literal["lookup"]
    symbols: PositiveInt = Field(default=16, description="Number of distinct symbols.")
    records: PositiveInt = Field(default=4, description="Records per source.")
    width: PositiveInt = Field(default=3, description="Symbols of a record's value.")
    length: PositiveInt = Field(default=256, description="Symbols of noise.")

    @property
    def needed(self) -> int:
        return self.symbols + self.records

    @property
    def lengths(self) -> Lengths:
        return self.length + self.records * (1 + self.width) + 1, self.width + 1

    def draw(self, numbers: np.random.Generator) -> tuple[list[int], list[int]]:
        noise = [self.records + int(symbol) for symbol in numbers.integers(0, self.symbols, self.length)]
        drawn = numbers.integers(0, self.symbols, (self.records, self.width))
        values = [[self.records + int(symbol) for symbol in row] for row in drawn]
        positions = sorted(int(position) for position in numbers.integers(0, self.length + 1, self.records))
        order = [int(key) for key in numbers.permutation(self.records)]
        source: list[int] = []
        for begin, end, key in zip([0, *positions], positions, order, strict=False):
            source += [*noise[begin:end], key, *values[key]]
        query = int(numbers.integers(self.records))
        return [*source, *noise[positions[-1] :], query], values[query]


AnyTask = Copy | Reverse | Sort | Recall | Lookup
