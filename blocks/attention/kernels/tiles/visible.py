"""The keys that a range of queries attends to, and the range of those that are masked for some query."""

from dataclasses import replace

from pairform.blocks.attention.masks import JoinedMask, Mask


def within(mask: JoinedMask, begin: int, end: int) -> tuple[tuple[slice, ...], JoinedMask]:
    """The range of keys in each part that queries `begin` to `end` may attend to, and the mask of these queries on them."""
    found = [part_within(part, begin, end) for part in mask.parts]
    return tuple(place for place, _ in found), JoinedMask(tuple(part for _, part in found))


def part_within(part: Mask, begin: int, end: int) -> tuple[slice, Mask]:
    """`within` of one part. The range is never empty: it contains the key of the query itself, or all keys."""
    first, last = part.query_start + begin, part.query_start + end - 1
    low, high = part.key_start, part.key_start + part.key_length
    left, right = part.window
    if left is not None:
        low = max(low, first - left)
    right = right if part.blocks is None else part.ahead
    if right is not None:
        high = min(high, last + right + 1)
    place = slice(low - part.key_start, high - part.key_start)
    return place, columns(part.rows(begin, end), place)


def partly_hidden(mask: JoinedMask) -> tuple[slice, JoinedMask]:
    """A range of keys outside of which every query attends to every key, and the mask on it; empty if nothing is masked."""
    places = [part_partly_hidden(part) for part in mask.parts]
    some = [number for number, place in enumerate(places) if place.start < place.stop]
    if not some:
        return slice(0, 0), JoinedMask(())
    first, last = some[0], some[-1]
    kept, before = [], sum(part.key_length for part in mask.parts[:first])
    for number in range(first, last + 1):
        start = places[number].start if number == first else 0
        stop = places[number].stop if number == last else mask.parts[number].key_length
        kept.append(columns(mask.parts[number], slice(start, stop)))
    begin = before + places[first].start
    return slice(begin, begin + sum(part.key_length for part in kept)), JoinedMask(tuple(kept))


def part_partly_hidden(part: Mask) -> slice:
    """`partly_hidden` of one part; empty if nothing is masked."""
    if part.padded:
        return slice(0, part.key_length)
    left, right = part.window
    # keys before `first` are outside the last query's window, those from `end` on outside the first query's. Blocks only unmask
    # keys, so the range may be larger than necessary
    first = 0 if left is None else max(part.query_start + part.query_length - 1 - left - part.key_start, 0)
    end = part.key_length if right is None else min(part.query_start + right - part.key_start + 1, part.key_length)
    if (first > 0 and end < part.key_length) or first >= end:
        return slice(0, part.key_length)
    return slice(end, part.key_length) if first == 0 else slice(0, first)


def columns(part: Mask, place: slice) -> Mask:
    """The mask of all queries on the keys at `place`."""
    return replace(
        part,
        key_start=part.key_start + place.start,
        key_length=place.stop - place.start,
        valid=None if part.valid is None else part.valid[:, place],
        key_segments=None if part.key_segments is None else part.key_segments[:, place],
    )
