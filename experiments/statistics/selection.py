"""The choice of the best of some settings from a few seeds, and whether it lies at the edge of what was tried."""

import math
import statistics
from collections.abc import Sequence
from typing import Any, Literal

Edge = Literal["smallest", "largest"]


def lowest(settings: Sequence[Sequence[float | None]]) -> int | None:
    """The index of the setting with the lowest mean loss; the first one of equals.

    A mean over the seeds that did not fail says nothing about the others, so a setting comes after those with fewer failed
    seeds, whatever its loss.

    Args:
        settings: Of each setting, the loss of each seed; None for one that failed.

    Returns:
        The index; None if every seed of every setting failed.
    """
    best, least = None, (math.inf, math.inf)
    for index, losses in enumerate(settings):
        known = [loss for loss in losses if loss is not None]
        if known and (key := (len(losses) - len(known), statistics.fmean(known))) < least:
            best, least = index, key
    return best


def edge(values: Sequence[Any], chosen: Any) -> Edge | None:
    """Whether a number is the smallest or largest that was tried; None for values that are not numbers."""
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return None
    return "smallest" if chosen == min(values) else "largest" if chosen == max(values) else None
