"""Confidence intervals of means over seeds, by Student's t distribution."""

import functools
import math
import statistics
from collections.abc import Sequence

CONFIDENCE = 0.95
FEWEST = 3
"""Number of seeds from which a mean has an interval: that of two seeds is 9 times their standard deviation to either side."""


def interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float | None]:
    """The mean of `values` and the half-width of its confidence interval; None for fewer than three values."""
    mean = statistics.fmean(values)
    if len(values) < FEWEST:
        return mean, None
    spread = statistics.stdev(values) / math.sqrt(len(values))
    return mean, spread * t_quantile((1 + confidence) / 2, len(values) - 1)


@functools.cache
def t_quantile(probability: float, freedom: int) -> float:
    """Quantile of Student's t distribution."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, probability))
