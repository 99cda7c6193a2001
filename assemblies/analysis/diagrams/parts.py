"""What a diagram shows: cards in columns, one column a stack."""

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from pairform.assemblies.analysis.diagrams.folding import Loop

LONGEST = 44
"""Characters in a line."""
OUTPUT = "output"
Mark = Literal["", "added", "removed", "changed"]


@dataclass(frozen=True)
class Card:
    """A block.

    phrases: what it sets.
    changes: what is different from the other model's.
    norms:   the names of the norms in front of it and behind it.
    source:  what of the encoder it reads: its output, a layer's, or nothing.
    """

    title: str
    phrases: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    mark: Mark = ""
    norms: tuple[str | None, str | None] = (None, None)
    source: str = ""


@dataclass(frozen=True)
class Turn:
    """Branches that read the same hidden states. join: how they are added, if not plainly. norm: behind the sum."""

    cards: tuple[Card, ...]
    join: str = ""
    norm: str | None = None


@dataclass(frozen=True)
class Layer:
    """notes: what differs in the layer as a whole."""

    turns: tuple[Turn, ...]
    mark: Mark = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Column:
    """A stack, from its tokens to its last hidden states. notes: what differs in the stack as a whole."""

    name: str
    size: str
    above: tuple[Card, ...]
    loops: tuple[Loop[Layer], ...]
    below: tuple[Card, ...]
    mark: Mark = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Diagram:
    """tied: whether the stacks have one embedding. notes: differences that concern the whole model."""

    title: str
    columns: tuple[Column, ...]
    tied: bool = False
    notes: tuple[str, ...] = ()


def wrapped(phrases: Iterable[str], joint: str = ", ") -> list[str]:
    """Phrases as lines of about `LONGEST` characters; one that is longer is broken between its words."""
    lines: list[str] = []
    for phrase in phrases:
        if lines and len(lines[-1]) + len(joint) + len(phrase) <= LONGEST:
            lines[-1] += joint + phrase
        else:
            lines += textwrap.wrap(phrase, LONGEST) or [phrase]
    return lines
