"""Packing: several examples in one row, so that little of a batch is padding.

The windows of a batch are sorted by length, so that those of one forward pass are alike. Where they still differ, as with drawn
splits and few windows, their examples are packed into fewer and longer rows. Where rows would become too long for that, as with
UL2 and long windows, a forward pass is split into several of similar windows.
"""

import heapq
from collections.abc import Sequence
from itertools import accumulate

from pairform.training.data.objectives import Piece

Row = list[Piece]
ENOUGH = 0.04
"""Fraction of padding at which no better packing is sought."""
MOST_PASSES = 8
"""Most forward passes that one is split into: each has a fixed cost, above all where parameters are gathered from processes."""
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


def passes(shares: Sequence[Sequence[Sequence[Row]]]) -> list[list[list[Row]]]:
    """The rows of each forward pass of each process, from the windows of each, sorted by length.

    All forward passes are split into equally many, into the fewest with little padding in all together. So processes do as many
    as each other.
    """
    best: list[list[list[Row]]] = []
    least = 2.0
    for parts in range(1, 1 + min(MOST_PASSES, max(len(windows) for share in shares for windows in share))):
        found = [[pack(part) for windows in share for part in split(windows, parts)] for share in shares]
        if (unused := padding(*(rows for share in found for rows in share))) < least:
            best, least = found, unused
        if least <= ENOUGH:
            break
    return best


def split(windows: Sequence[Row], parts: int) -> list[Sequence[Row]]:
    """Windows sorted by length as `parts` runs of similar ones, or as many as there are windows."""
    made = [windows]
    for _ in range(1, min(parts, len(windows))):
        cuts = [best_cut(part) for part in made]
        number = cuts.index(max(cuts))
        place = cuts[number][2]
        made[number : number + 1] = [made[number][:place], made[number][place:]]
    return made


def best_cut(windows: Sequence[Row]) -> tuple[int, int, int]:
    """Where to cut windows in two: the padding saved, in tokens; minus the difference of the halves' numbers; the place."""
    count = len(windows)
    if count < 2:
        return -1, 0, 0
    sources, targets = zip(*map(lengths, windows), strict=True)
    before = [[*accumulate(side, max)] for side in (sources, targets)]
    after = [[*accumulate(reversed(side), max)][::-1] for side in (sources, targets)]
    whole = count * (before[0][-1] + before[1][-1])

    def room(place: int) -> int:
        first, second = before[0][place - 1] + before[1][place - 1], after[0][place] + after[1][place]
        return place * first + (count - place) * second

    return max((whole - room(place), -abs(count - 2 * place), place) for place in range(1, count))


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

    Two orders are tried: those that are longest on one side first, which is best for many of different lengths; and those with
    the largest share of source tokens first, then those with the largest share of target tokens, which makes pairs of few that
    are about equally long.
    """
    sources, targets = (max(1, sum([len(piece[side]) for piece in pieces])) for side in (0, 1))
    parts = [(len(piece.source) / sources, len(piece.target) / targets, piece) for piece in pieces]
    longest = sorted(parts, key=lambda part: max(part[:2]), reverse=True)
    leaning = sorted(parts, key=lambda part: part[0] - part[1], reverse=True)
    return min((filled(order, count) for order in (longest, [*leaning[:count], *leaning[: count - 1 : -1]])), key=padding)


def filled(parts: Sequence[tuple[float, float, Piece]], count: int) -> list[Row]:
    """The examples in rows, each put where it adds least to the sum of the squares of the rows' lengths.

    parts: the shares that each example has in all source tokens and in all target tokens, and the example.
    """
    rows: list[Row] = [[] for _ in range(count)]
    lengths = [(0.0, 0.0)] * count
    for source, target, piece in parts:
        costs = [read * source + written * target for read, written in lengths]
        place = costs.index(min(costs))
        rows[place].append(piece)
        lengths[place] = (lengths[place][0] + source, lengths[place][1] + target)
    return rows


def padding(*batches: Sequence[Row]) -> float:
    """The fraction of padding of forward passes, each of some rows."""
    tokens = padded = 0
    for rows in batches:
        sources, targets = zip(*map(lengths, rows), strict=True)
        tokens += sum(sources) + sum(targets)
        padded += len(rows) * (max(sources) + max(targets))
    return 1 - tokens / padded if padded else 0.0
