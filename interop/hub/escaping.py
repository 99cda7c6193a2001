"""Text from files inside Markdown: nothing in it becomes markup, a link or a new line."""

import re
from collections.abc import Sequence

from pairform.registry import printable
from pairform.registry.errors import cut_end

LONGEST = 200
"""Of a text in a card, in characters."""


def plain(text: object) -> str:
    """Words in a paragraph or a heading."""
    return re.sub(r"([\\`*_{}\[\]<>()#+!|~$&-])", r"\\\1", printable(cut_end(str(text), LONGEST)))


def code(text: object) -> str:
    """A name in a code span, also in a table's cell."""
    return f"`{printable(cut_end(str(text), LONGEST)).replace('`', chr(39)).replace('|', '/') or ' '}`"


def table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A table of cells that are escaped already; all but the first column are numbers or short words."""
    lines = [header, ("---", *("---:" for _ in header[1:])), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
