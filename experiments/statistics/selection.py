"""The choice of the best of some settings from a few seeds: how certain it is, and whether it is at the edge of a range."""

import math
import statistics
from collections.abc import Sequence
from typing import Any, Literal

from pairform.experiments.statistics.intervals import CONFIDENCE, t_quantile

Losses = Sequence[Sequence[float | None]]
"""Of each setting, the loss of each seed; None for one that failed."""
Edge = Literal["smallest", "largest"]


def lowest(settings: Losses) -> int | None:
    """The index of the setting with the lowest mean loss; the first one of equals.

    A mean over the seeds that did not fail says nothing about the others, so a setting comes after those with fewer failed
    seeds, whatever its loss.

    Returns:
        The index; None if every seed of every setting failed.
    """
    best, least = None, (math.inf, math.inf)
    for index, losses in enumerate(settings):
        known = present(losses)
        if known and (key := (len(losses) - len(known), statistics.fmean(known))) < least:
            best, least = index, key
    return best


def edge(values: Sequence[Any], chosen: Any) -> Edge | None:
    """Whether a number is the smallest or largest that was tried; None for values that are not numbers."""
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return None
    return "smallest" if chosen == min(values) else "largest" if chosen == max(values) else None


def close_calls(sweeps: Sequence[Losses]) -> list[list[int]] | None:
    """For each sweep, the settings that are not clearly worse than the best: by less than the 95 % interval of a difference.

    The noise is what is left of the losses of a sweep without the means of its settings and of its seeds. It is pooled over
    all sweeps. Settings with failed seeds do not count.

    Returns:
        Indices by sweep; None if there is no noise to be estimated, as for one seed.
    """
    squares, freedom = 0.0, 0
    for settings in sweeps:
        rows = [present(losses) for losses in settings if None not in losses]
        seeds = [statistics.fmean(column) for column in zip(*rows, strict=False)]
        for row in rows:
            own = statistics.fmean(row) - statistics.fmean(seeds)
            squares += sum((loss - seed - own) ** 2 for loss, seed in zip(row, seeds, strict=True))
        freedom += max(0, len(rows) - 1) * max(0, len(seeds) - 1)
    if not freedom:
        return None
    reach = t_quantile((1 + CONFIDENCE) / 2, freedom) * math.sqrt(2 * squares / freedom)
    found = []
    for settings in sweeps:
        best, close = lowest(settings), []
        for index, losses in enumerate(settings):
            if best is not None and index != best and None not in losses:
                behind = statistics.fmean(present(losses)) - statistics.fmean(present(settings[best]))
                close += [index] if behind <= reach / math.sqrt(len(losses)) else []
        found.append(close)
    return found


def present(losses: Sequence[float | None]) -> list[float]:
    return [loss for loss in losses if loss is not None]
