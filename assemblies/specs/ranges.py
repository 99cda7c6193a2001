"""Short forms of lists of layer numbers."""

import itertools
from collections.abc import Sequence


def ranges(numbers: Sequence[int]) -> str:
    """Numbers with a constant step as `0, 2, …, 24`, others by their runs: `0-4, 6-10, …, 30-33`."""
    steps = {later - earlier for earlier, later in itertools.pairwise(numbers)}
    parts = list(map(str, numbers)) if len(steps) <= 1 else stretches(numbers)
    return ", ".join(parts) if len(parts) <= 3 else f"{parts[0]}, {parts[1]}, …, {parts[-1]}"


def stretches(numbers: Sequence[int]) -> list[str]:
    """Each run of consecutive numbers as its first and last."""
    starts = [number for number in numbers if number - 1 not in numbers]
    ends = [number for number in numbers if number + 1 not in numbers]
    return [str(start) if start == end else f"{start}-{end}" for start, end in zip(starts, ends, strict=True)]
