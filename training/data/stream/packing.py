"""Packing: several examples in one row, so that little of a batch is padding.

The windows of a batch are sorted by length, so that those of one forward pass are alike. Where they still differ, as with drawn
splits and few windows, their examples are packed into fewer and longer rows.
"""

import heapq
from collections.abc import Sequence

from pairform.training.data.objectives import Piece

Row = list[Piece]
ENOUGH = 0.04
"""Fraction of padding at which no better packing is sought."""
MOST_WINDOWS, LONGEST = 8, 16384
"""Most windows, and most source and target tokens, of a row that several windows are packed into: the time and memory of
attention grow with its length."""


def by_length(rows: Sequence[Row]) -> list[Row]:
    """The rows in the order of their lengths, the longest sources first."""
    return sorted(rows, key=lengths, reverse=True)


def lengths(row: Row) -> tuple[int, int]:
    """Tokens of a row's sources and of its targets."""
    return sum([len(source) for source, _ in row]), sum([len(target) for _, target in row])


def grouped(pieces: Sequence[Piece], rows: int) -> list[Row]:
    """The examples in `rows` rows with about equally many tokens each: the longest first, each to the shortest row so far."""
    made: list[Row] = [[] for _ in range(rows)]
    shortest = [(0, row) for row in range(rows)]
    for piece in sorted(pieces, key=size, reverse=True):
        length, row = shortest[0]
        made[row].append(piece)
        heapq.heapreplace(shortest, (length + size(piece), row))
    return made


def size(piece: Piece) -> int:
    return len(piece.source) + len(piece.target)


def pack(windows: Sequence[Row]) -> list[Row]:
    """The rows of one forward pass: a window each, or fewer ones if windows of different lengths would leave much padding.

    Windows without an example have no row, unless all are such.
    """
    windows = [row for row in windows if row] or windows[:1]
    best, least = [*windows], padding(windows)
    pieces = [piece for row in windows for piece in row]
    total = sum(map(size, pieces))
    for windows_in_row in range(1, min(len(windows), MOST_WINDOWS) + 1):
        count = -(-len(windows) // windows_in_row)
        if least <= ENOUGH or (windows_in_row > 1 and total > LONGEST * count):
            break
        rows = balanced(pieces, count)
        if (found := padding(rows)) < least:
            best, least = rows, found
    return best


def balanced(pieces: Sequence[Piece], count: int) -> list[Row]:
    """The examples in `count` rows with about equally many source tokens, and target tokens, each.

    Each example is put where it adds least to the sum of the squares of the rows' lengths, measured in mean lengths; those that
    are longest on one side go first.
    """
    sources, targets = (max(1, sum([len(piece[side]) for piece in pieces])) for side in (0, 1))
    parts = [(len(piece.source) / sources, len(piece.target) / targets, piece) for piece in pieces]
    rows: list[Row] = [[] for _ in range(count)]
    filled = [(0.0, 0.0)] * count
    for source, target, piece in sorted(parts, key=lambda part: max(part[:2]), reverse=True):
        costs = [read * source + written * target for read, written in filled]
        place = costs.index(min(costs))
        rows[place].append(piece)
        filled[place] = (filled[place][0] + source, filled[place][1] + target)
    return rows


def padding(rows: Sequence[Row]) -> float:
    """The fraction of padding of these rows together."""
    sources, targets = zip(*map(lengths, rows), strict=True)
    padded = len(rows) * (max(sources) + max(targets))
    return 1 - (sum(sources) + sum(targets)) / padded if padded else 0.0
