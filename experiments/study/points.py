"""The points that a search asked for: as they are kept in `search.json`, and how chance chooses one that was not asked."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pairform.registry import OutputError, Problem, SpecError, parse_json, read_text, shorten

SUMMARY = "search.json"
Choices = Mapping[str, Sequence[str]]
"""The variants' names, and by path the values of the grid as JSON."""


@dataclass
class Point:
    """One value of each choice, with the names of its trials.

    refused: why it is no valid model.
    number:  Optuna's for it.
    value:   the mean over seeds of what the search measures, once all trials are done.
    """

    params: dict[str, str]
    trials: list[str] = field(default_factory=list)
    refused: str | None = None
    number: int = 0
    value: float | None = None
    ended: bool = False

    def __post_init__(self) -> None:
        self.ended = self.refused is not None


def read_points(out: Path, choices: Choices, measure: str) -> list[dict[str, str]]:
    """What an earlier run asked for, in order. A search among other choices, or for another measure, raises `OutputError`."""
    file = out / SUMMARY
    if not file.exists():
        return []
    try:
        entries: Any = parse_json(read_text(file))
    except (OSError, ValueError, RecursionError) as error:
        raise SpecError(Problem(str(file), str(error), "the points of a search, as JSON")) from None
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and isinstance(entry.get("point"), dict) for entry in entries
    ):
        raise SpecError(Problem(str(file), shorten(entries), "a list of objects with a point each"))
    found: list[dict[str, str]] = []
    for entry in entries:
        point = entry["point"]
        if set(point) != set(choices) or any(value not in choices[name] for name, value in point.items()):
            raise another(out, "a search in another grid or among other variants")
        if measure not in entry:
            raise another(out, "a search for another measure")
        if point not in found:  # earlier versions asked for some twice
            found.append(point)
    return found


def another(out: Path, found: str) -> OutputError:
    return OutputError(Problem(str(out), found, "this study's", "Choose another folder with --out."))


def pick(choices: Choices, asked: Sequence[dict[str, str]], numbers: np.random.Generator) -> dict[str, str]:
    """A point that was not asked: a random one, or else the next in the grid's order."""
    total = math.prod(map(len, choices.values()))
    place = int(numbers.integers(min(total, 2**62)))
    while (point := point_at(choices, place)) in asked:
        place = (place + 1) % total
    return point


def point_at(choices: Choices, place: int) -> dict[str, str]:
    """The grid's point of that number: the last choice changes first."""
    point: dict[str, str] = {}
    for name, values in reversed(list(choices.items())):
        place, digit = divmod(place, len(values))
        point[name] = values[digit]
    return {name: point[name] for name in choices}
