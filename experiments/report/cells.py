"""Tables of a report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Cell:
    """A cell's text and the value it is sorted by: None to sort by the text, "" to come last in either direction."""

    text: str
    value: float | Literal[""] | None = None


@dataclass(frozen=True)
class Table:
    """A table whose first column names its rows.

    rows:     the first cell of each is its name: the name of a variant gets the variant's mark.
    sorts:    whether a click on a column's name sorts the rows.
    fold:     the words that unfold the table; without any, it is always shown. It is unfolded at first if `unfolded`.
    notes:    explanations of columns.
    findings: sentences about the table, by subject.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    sorts: bool = False
    fold: str = ""
    unfolded: bool = False
    notes: Mapping[str, str] = field(default_factory=dict)
    findings: Sequence[tuple[str, str]] = ()
