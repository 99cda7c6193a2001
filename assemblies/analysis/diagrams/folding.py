"""Finding repetition in a list of layers."""

import itertools
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)
LONGEST = 64
"""The most layers in a repeated pattern."""


@dataclass(frozen=True)
class Run(Generic[T]):
    """The same item, `times` times in a row. places: its indices in the whole list, over all repetitions of its loop."""

    item: T
    times: int
    places: tuple[int, ...]


@dataclass(frozen=True)
class Loop(Generic[T]):
    """A sequence of runs, repeated `times` times."""

    times: int
    runs: tuple[Run[T], ...]


def fold(items: Sequence[T]) -> list[Loop[T]]:
    """The items as loops, in order. At each index the pattern that covers most items is taken, the shortest of several."""
    loops: list[Loop[T]] = []
    start = 0
    while start < len(items):
        period, times = max(
            ((period, repetitions(items, start, period)) for period in range(1, min(LONGEST, len(items) - start) + 1)),
            key=lambda found: (found[0] * found[1] if found[1] > 1 else 0, -found[0]),
        )
        loops.append(Loop(times, tuple(runs_of(items, start, period, times))))
        start += period * times
    return loops


def repetitions(items: Sequence[T], start: int, period: int) -> int:
    """How many times the `period` items from `start` are repeated in a row."""
    pattern, times = items[start : start + period], 1
    while items[start + times * period : start + (times + 1) * period] == pattern:
        times += 1
    return times


def runs_of(items: Sequence[T], start: int, period: int, times: int) -> list[Run[T]]:
    found: list[Run[T]] = []
    begin = start
    for item, group in itertools.groupby(items[start : start + period]):
        length = len(list(group))
        places = [repetition * period + place for repetition in range(times) for place in range(begin, begin + length)]
        found.append(Run(item, length, tuple(places)))
        begin += length
    return found
