"""The noise floor of a study: what differences its seeds can show, from trials that are done."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pairform.experiments.results.records import baselines, first_variant
from pairform.experiments.results.summary import paired, results_of, trials_by_variant
from pairform.experiments.statistics.intervals import CONFIDENCE, FEWEST
from pairform.experiments.statistics.power import detectable, deviation_interval, seeds_needed
from pairform.experiments.statistics.rules import ComparisonSpec


@dataclass(frozen=True)
class Noise:
    """The standard deviation over seeds of the difference between two variants' losses.

    deviation: estimate; where only the first variant has trials, that of two variants whose losses are independent, which is
               an upper bound for variants that share what a seed does.
    freedom:   degrees of freedom of the estimate.
    source:    what it was estimated from, in words.
    """

    deviation: float
    freedom: int
    source: str

    @property
    def interval(self) -> tuple[float, float]:
        """The confidence interval of the deviation."""
        return deviation_interval(self.deviation, self.freedom + 1, CONFIDENCE)

    def detectable(self, seeds: int, comparisons: int, rules: ComparisonSpec) -> float | None:
        """The smallest difference that `seeds` show among so many comparisons; None for seeds too few to test."""
        if seeds < FEWEST:
            return None
        return detectable(self.deviation, seeds, error_rate(comparisons, rules), rules.power)

    def seeds_needed(self, difference: float, comparisons: int, rules: ComparisonSpec) -> int | None:
        """The number of seeds that show `difference`; None for more than 10,000."""
        needed = seeds_needed(difference, self.deviation, error_rate(comparisons, rules), rules.power)
        return None if needed is None else max(FEWEST, needed)


def error_rate(comparisons: int, rules: ComparisonSpec) -> float:
    """The error rate of one test among so many: under a correction, that of the smallest p-value."""
    return rules.error_rate if rules.correction == "none" else rules.error_rate / max(1, comparisons)


def noise_of(study: Path) -> Noise | None:
    """The noise of a study's losses, from the trials that are done; None if no variant has three."""
    groups = trials_by_variant(study)
    losses = results_of(study, groups)
    others = baselines({variant: own[0].point for variant, own in groups.items()}, first_variant(study))
    differences = [paired(losses[name], losses.get(other, {}), "loss") for name, other in others.items() if other != name]
    if (found := pooled(differences)) is not None:
        deviation, freedom = found
        count = sum(len(values) >= FEWEST for values in differences)
        return Noise(deviation, freedom, f"the differences of {count} variant{'s' * (count > 1)} from the first")
    alone = [
        [loss for loss in map(loss_of, losses[name].values()) if loss is not None]
        for name in set(others.values()) & losses.keys()
    ]
    if (found := pooled(alone)) is not None:
        deviation, freedom = found
        seeds = max(map(len, alone))
        return Noise(math.sqrt(2) * deviation, freedom, f"{seeds} seeds of the first variant")
    return None


def loss_of(result: Mapping[str, Any]) -> float | None:
    """A trial's loss; None if it could not be measured."""
    return result.get("loss")


def pooled(groups: Sequence[Sequence[float]]) -> tuple[float, int] | None:
    """The standard deviation within groups of three or more values, and its degrees of freedom; None without such a group."""
    used = [values for values in groups if len(values) >= FEWEST]
    freedom = sum(len(values) - 1 for values in used)
    if not freedom:
        return None
    return math.sqrt(sum((len(values) - 1) * statistics.variance(values) for values in used) / freedom), freedom
