"""The parts of a diagram: cards in columns, one column for each stack."""

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from pairform.assemblies.analysis.diagrams.folding import Loop

LONGEST = 44
"""The most characters in a line."""
OUTPUT = "output"
Mark = Literal["", "added", "removed", "changed"]


@dataclass(frozen=True)
class Card:
    """A block.

    phrases: the fields that it sets.
    changes: how it differs from the other model's.
    norms:   the names of the norms before and after it.
    source:  what it reads of the encoder: the output, a layer's, or nothing.
    """

    title: str
    phrases: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    mark: Mark = ""
    norms: tuple[str | None, str | None] = (None, None)
    source: str = ""


@dataclass(frozen=True)
class ParallelGroup:
    """Branches that read the same hidden states.

    join: the residual, if it is not a plain sum.
    norm: the norm after the sum.
    """

    cards: tuple[Card, ...]
    join: str = ""
    norm: str | None = None


@dataclass(frozen=True)
class Layer:
    """notes: differences of the layer as a whole."""

    groups: tuple[ParallelGroup, ...]
    mark: Mark = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Column:
    """A stack, from its tokens to its last hidden states. notes: differences of the stack as a whole."""

    name: str
    size: str
    above: tuple[Card, ...]
    loops: tuple[Loop[Layer], ...]
    below: tuple[Card, ...]
    mark: Mark = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Diagram:
    """tied: whether the stacks share one embedding. notes: differences of the whole model."""

    title: str
    columns: tuple[Column, ...]
    tied: bool = False
    notes: tuple[str, ...] = ()


def wrapped(phrases: Iterable[str], joint: str = ", ") -> list[str]:
    """Phrases as lines of at most about `LONGEST` characters; longer phrases are wrapped between words."""
    lines: list[str] = []
    for phrase in phrases:
        if lines and len(lines[-1]) + len(joint) + len(phrase) <= LONGEST:
            lines[-1] += joint + phrase
        else:
            lines += textwrap.wrap(phrase, LONGEST) or [phrase]
    return lines
