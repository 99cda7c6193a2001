"""What a design can detect: the power of t-tests of differences that are paired by seed."""

import functools
import math

from pairform.experiments.statistics.intervals import t_quantile

POWER = 0.8
MOST_SEEDS = 10_000


def power(difference: float, deviation: float, seeds: int, error_rate: float) -> float:
    """The probability that a two-sided paired t-test finds a true `difference`, with the right sign.

    Args:
        difference: True mean of the differences.
        deviation: Standard deviation of the differences over seeds.
        seeds: Number of seeds, 2 or more.
        error_rate: Probability of a finding where there is no difference.
    """
    from scipy.stats import nct

    if not deviation:
        return float(difference != 0)
    bound = t_quantile(1 - error_rate / 2, seeds - 1)
    return float(nct.sf(bound, seeds - 1, abs(difference) * math.sqrt(seeds) / deviation))


def detectable(deviation: float, seeds: int, error_rate: float, wanted: float = POWER) -> float:
    """The smallest difference that is found with probability `wanted`."""
    return deviation * detectable_ratio(seeds, error_rate, wanted)


@functools.cache
def detectable_ratio(seeds: int, error_rate: float, wanted: float) -> float:
    """The smallest difference that is found, divided by the standard deviation."""
    low, high = 0.0, 1.0
    while power(high, 1.0, seeds, error_rate) < wanted:
        low, high = high, 2 * high
    for _ in range(50):  # halvings, to the last bits of a float
        middle = (low + high) / 2
        low, high = (middle, high) if power(middle, 1.0, seeds, error_rate) < wanted else (low, middle)
    return high


def seeds_needed(difference: float, deviation: float, error_rate: float, wanted: float = POWER) -> int | None:
    """The smallest number of seeds with which `difference` is found with probability `wanted`; None for more than 10,000."""
    low, high = 1, 2
    while power(difference, deviation, high, error_rate) < wanted:
        low, high = high, 2 * high
        if low > MOST_SEEDS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if power(difference, deviation, middle, error_rate) < wanted else (low, middle)
    return high if high <= MOST_SEEDS else None


def deviation_interval(deviation: float, seeds: int, confidence: float) -> tuple[float, float]:
    """The confidence interval of a standard deviation that was estimated from `seeds` values of a normal distribution."""
    from scipy.special import chdtri

    freedom, tail = seeds - 1, (1 - confidence) / 2
    spread = deviation * math.sqrt(freedom)
    return spread / math.sqrt(chdtri(freedom, tail)), spread / math.sqrt(chdtri(freedom, 1 - tail))
