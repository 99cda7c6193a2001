"""Objects that show themselves in a notebook: a title, tables and a drawing as one HTML fragment.

Everything is escaped and cut to a length, since names and values may come from a stranger's file. The fragment has no script,
takes its colours from the page, and its size is bounded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TypeAlias

from pairform.registry.errors import cut_middle, printable

LONGEST_CELL, MOST_ROWS, MOST_COLUMNS = 300, 60, 12
"""Characters of a cell, and rows and columns of a table, that are shown."""
LARGEST_DRAWING = 100_000
"""Characters of a drawing that is shown. The diagrams of all presets have less than 30,000."""
STYLE = """
.pairform-view { line-height: 1.4; max-width: 60rem; }
.pairform-view.pairform-view table { border-collapse: collapse; margin: .5em 0; font-variant-numeric: tabular-nums; }
.pairform-view.pairform-view tr { background: none; border-bottom: 1px solid rgba(128, 128, 128, .35); }
.pairform-view.pairform-view tr > * { padding: .2em 1em .2em 0; text-align: left; vertical-align: top; white-space: pre-wrap; }
.pairform-view.pairform-view tr > .number { text-align: right; }
.pairform-view .drawing { max-height: 40rem; overflow: auto; }
.pairform-view svg { max-width: 100%; height: auto; }
"""
"""The class is doubled to precede the rules that Jupyter has for tables."""
Cell: TypeAlias = str | int | float | None


@dataclass(frozen=True)
class Table:
    """A table. head: the names of its columns. The first cell of each row is the row's name."""

    rows: Sequence[Sequence[Cell]]
    head: Sequence[str] = ()


def fragment(title: str, *tables: Table, drawing: str = "", notes: Sequence[str] = ()) -> str:
    """An HTML fragment for a notebook.

    Args:
        title: One line.
        tables: Below it; those without rows are left out.
        drawing: An SVG document whose text is escaped. One that is too large is left out, with a sentence in its place.
        notes: Sentences below the tables.
    """
    if len(drawing) > LARGEST_DRAWING:
        notes = [*notes, f"The diagram is not shown: it has {len(drawing):,} characters."]
        drawing = ""
    parts = [f"<p><strong>{text(title)}</strong></p>", *(rendered(table) for table in tables if table.rows)]
    parts += [f"<p>{text(note)}</p>" for note in notes[:MOST_ROWS]]
    parts += [f'<div class="drawing">{drawing}</div>'] if drawing else []
    return f'<div class="pairform-view"><style>{STYLE}</style>\n' + "\n".join(parts) + "\n</div>"


def rendered(table: Table) -> str:
    looks = [look(cell) for cell in table.rows[0]]  # a column's name is aligned as its first cell
    head = "".join(f'<th scope="col"{look}>{text(name)}</th>' for name, look in zip(table.head, looks, strict=False))
    lines = [f"<thead><tr>{head}</tr></thead>"] if head else []
    lines += ["<tbody>", *(f"<tr>{''.join(cells(row))}</tr>" for row in table.rows[:MOST_ROWS])]
    more = len(table.rows) - MOST_ROWS
    lines += [f"<tr><td>and {more:,} more</td></tr>"] if more > 0 else []
    return "\n".join(["<table>", *lines, "</tbody></table>"])


def cells(row: Sequence[Cell]) -> list[str]:
    first, *others = row[:MOST_COLUMNS]
    return [f'<th scope="row">{text(first)}</th>', *(f"<td{look(cell)}>{text(cell)}</td>" for cell in others)]


def look(cell: Cell) -> str:
    """Numbers are aligned on the right."""
    return "" if cell is None or isinstance(cell, str) else ' class="number"'


def text(cell: Cell) -> str:
    """A cell's text, escaped; a float with one decimal."""
    if cell is None:
        return ""
    if isinstance(cell, int):
        return f"{cell:,}"
    return escape(printable(cut_middle(cell if isinstance(cell, str) else f"{cell:,.1f}", LONGEST_CELL)))
