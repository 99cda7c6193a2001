"""Synthetic tasks: random sources, and targets computed from them.

Symbol n is the n-th id of the model's vocabulary that is not a special token.
"""

from collections.abc import Callable, Iterator, Mapping
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
        if problems := list(self.check()):
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


TARGETS: Mapping[str, Callable[[list[int]], list[int]]] = {"copy": list, "reverse": lambda source: source[::-1], "sort": sorted}
"""The target of a source, by the task's name."""


class SequenceTask(Task):
    """The target is the source (`copy`), reversed (`reverse`), or with its symbols in ascending order (`sort`)."""

    symbols: PositiveInt = Field(default=16, description="Number of distinct symbols.")
    length: Range = Field(default=(4, 16), description="Shortest and longest source in tokens.")
    name: Literal["copy", "reverse", "sort"] = Field(description="What the target is.")

    @property
    def needed(self) -> int:
        return self.symbols

    @property
    def lengths(self) -> Lengths:
        return self.length[1], self.length[1] + 1

    def draw(self, numbers: np.random.Generator) -> tuple[list[int], list[int]]:
        length = int(numbers.integers(self.length[0], self.length[1] + 1))
        source: list[int] = numbers.integers(0, self.symbols, length).tolist()
        return source, TARGETS[self.name](source)

    def check(self) -> Iterator[Problem]:
        if self.length[0] > self.length[1]:
            yield Problem("data.length", str(list(self.length)), "the shortest length, then the longest")


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
        keys = numbers.permutation(self.keys)[: self.pairs]
        values = self.keys + numbers.integers(0, self.values, self.pairs)
        query = numbers.integers(self.pairs)
        pairs = np.stack((keys, values), axis=1)
        return [*pairs.ravel().tolist(), int(keys[query])], [int(values[query])]

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
        noise = self.records + numbers.integers(0, self.symbols, self.length)
        values = self.records + numbers.integers(0, self.symbols, (self.records, self.width))
        positions = np.sort(numbers.integers(0, self.length + 1, self.records))
        order = numbers.permutation(self.records)
        records = np.column_stack((order, values[order]))  # each a key and its value
        query = numbers.integers(self.records)
        # one more than there are records: the noise before, between and after them
        gaps = np.split(noise, positions)
        source = np.concatenate([gaps[0], *(part for pair in zip(records, gaps[1:], strict=True) for part in pair), [query]])
        return source.tolist(), values[query].tolist()


AnyTask = SequenceTask | Recall | Lookup
