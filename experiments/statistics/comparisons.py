"""Differences of variants from a first one, paired by seed: tested, corrected for their number, and said in a sentence."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pairform.experiments.statistics.corrections import NAMES, adjust
from pairform.experiments.statistics.estimates import Estimate, of_pairs
from pairform.experiments.statistics.intervals import CONFIDENCE, FEWEST
from pairform.experiments.statistics.power import detectable
from pairform.experiments.statistics.rules import ComparisonSpec, Quality, spoken

Verdict = Literal["lower", "higher", "equivalent", "uncorrected", "not_found", "identical", "few_seeds"]
"""lower, higher: found, after the correction.
equivalent:    not found, and the interval lies within the margin.
uncorrected:   the test alone would have found it, and the correction does not.
not_found:     none of these.
identical:     no seed differs.
few_seeds:     fewer than three: there is no interval."""


@dataclass(frozen=True)
class Comparison:
    """The difference of one variant from the first.

    mean:       of the differences over `seeds` seeds.
    half_width: of the 95 % confidence interval of that mean; None for few seeds, as are the following.
    p:          of a two-sided paired t-test.
    adjusted:   p after the correction for `count` comparisons.
    detectable: the smallest difference that this design would find with the power that the study asks for.
    """

    measure: Quality
    verdict: Verdict
    mean: float
    seeds: int
    count: int
    half_width: float | None = None
    p: float | None = None
    adjusted: float | None = None
    detectable: float | None = None

    def sentence(self, rules: ComparisonSpec, *, interaction: bool = False) -> str:
        """What was found, as a sentence without a subject. interaction: the difference is one of two differences."""
        name = spoken(self.measure)
        if self.half_width is None or self.adjusted is None or self.detectable is None:
            return f"{self.seeds} of at least {FEWEST} seeds that an interval of the {name} needs."
        low, high = self.mean - self.half_width, self.mean + self.half_width
        within = f"{CONFIDENCE:.0%} interval {digits(low)} to {digits(high)}"
        tested = f"p = {self.adjusted:.2g}"
        if rules.correction != "none" and self.count > 1:
            tested += f" after {NAMES[rules.correction]} correction for {self.count} comparisons"
        margin = rules.margins.get(self.measure)
        what = f"interaction in {name}" if interaction else f"difference in {name}"
        size = digits(abs(self.mean))
        match self.verdict:
            case "identical":
                return f"no {what} with any seed."
            case "lower" | "higher":
                small = "" if margin is None or not inside(low, high, margin) else f", within the margin of {digits(margin)}"
                sign = "-" if self.mean < 0 else "+"
                change = f"{what} of {sign}{size}" if interaction else f"{name} {self.verdict} by {size}"
                return f"{change}{small} with every seed." if not self.half_width else f"{change}{small}: {within}, {tested}."
            case "equivalent":
                same = f"{what} smaller than" if interaction else f"equivalent in {name} within"
                return f"{same} {digits(margin or 0.0)}: {within}."
            case "uncorrected":
                return f"{what} not established: {within} excludes zero, but {tested}."
        return f"no {what} found: {within}; this design could see {digits(self.detectable)}."


def compare(differences: Mapping[str, Sequence[float]], measure: Quality, rules: ComparisonSpec) -> dict[str, Comparison]:
    """Compare variants with the first one.

    Args:
        differences: From the first variant, of each seed that both have, by variant.
        measure: What differs.
        rules: The study's rules.

    Returns:
        The comparison of each variant, by name; one with too few seeds is marked so.
    """
    estimates = {name: of_pairs(values) for name, values in differences.items() if len(values) >= FEWEST}
    found = judge(estimates, measure, rules)
    few = {
        name: Comparison(measure, "few_seeds", statistics.fmean(values), len(values), len(estimates))
        for name, values in differences.items()
        if len(values) < FEWEST
    }
    return {name: found.get(name) or few[name] for name in differences}


def judge(estimates: Mapping[str, Estimate], measure: Quality, rules: ComparisonSpec) -> dict[str, Comparison]:
    """What estimated differences show as a family of comparisons."""
    tests = {name: estimate.p for name, estimate in estimates.items()}
    adjusted = dict(zip(tests, adjust(list(tests.values()), rules.correction), strict=True))
    rate = rules.error_rate if rules.correction == "none" else rules.error_rate / max(1, len(tests))
    margin = rules.margins.get(measure)
    found = {}
    for name, estimate in estimates.items():
        mean, half = estimate.mean, estimate.half_width
        verdict: Verdict = "not_found"
        if not mean and not estimate.error:
            verdict = "identical"
        elif adjusted[name] < rules.error_rate:
            verdict = "lower" if mean < 0 else "higher"
        elif margin is not None and inside(mean - half, mean + half, margin):
            verdict = "equivalent"
        elif tests[name] < rules.error_rate:
            verdict = "uncorrected"
        effective = int(estimate.freedom) + 1  # pairs with as many degrees of freedom
        seen = detectable(estimate.error * math.sqrt(effective), effective, rate, rules.power)
        found[name] = Comparison(measure, verdict, mean, estimate.seeds, len(tests), half, tests[name], adjusted[name], seen)
    return found


def same_losses(other: str) -> str:
    """About a variant that has the losses of another one."""
    return f"the same loss as {other} with every finished seed. Check that what differs between them has an effect."


def inside(low: float, high: float, margin: float) -> bool:
    """Whether an interval lies inside a margin around zero."""
    return -margin < low and high < margin


def digits(value: float) -> str:
    """Four decimal places, two digits of a small number, or four of a large one."""
    if abs(value) >= 1e5:
        return f"{value:.4g}"
    return f"{value:.4f}" if abs(value) >= 1e-3 or not value else f"{value:.2g}"
