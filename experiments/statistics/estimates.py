"""Estimates of a difference: of pairs, or of two groups that have no pairs."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from pairform.experiments.statistics.intervals import CONFIDENCE


@dataclass(frozen=True)
class Estimate:
    """A difference of means.

    error:   its standard error.
    freedom: degrees of freedom of the error; a whole number for pairs.
    seeds:   those it is based on; of two groups, the number in the smaller one.
    """

    mean: float
    error: float
    freedom: float
    seeds: int

    @property
    def half_width(self) -> float:
        """Of the 95 % confidence interval."""
        from scipy.special import stdtrit

        return self.error * float(stdtrit(self.freedom, (1 + CONFIDENCE) / 2))

    @property
    def p(self) -> float:
        """Of a two-sided t-test of the hypothesis that there is no difference: 1 if there is none, 0 if it has no error."""
        from scipy.special import stdtr

        if not self.error:
            return float(self.mean == 0)
        return float(2 * stdtr(self.freedom, -abs(self.mean) / self.error))


def of_groups(one: Sequence[float], other: Sequence[float]) -> Estimate:
    """The mean of `one` minus that of `other`, with Welch's standard error and degrees of freedom (Welch 1947, "The
    generalization of 'Student's' problem when several different population variances are involved")."""
    parts = [(statistics.variance(values) / len(values), len(values) - 1) for values in (one, other)]
    square = sum(part for part, _ in parts)
    below = sum(part * part / freedom for part, freedom in parts)
    freedom = square * square / below if below else float(sum(each for _, each in parts))
    mean = statistics.fmean(one) - statistics.fmean(other)
    return Estimate(mean, math.sqrt(square), freedom, min(len(one), len(other)))


def of_pairs(differences: Sequence[float]) -> Estimate:
    """The mean of differences between pairs."""
    count = len(differences)
    error = statistics.stdev(differences) / math.sqrt(count)
    return Estimate(statistics.fmean(differences), error, count - 1, count)
