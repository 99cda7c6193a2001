"""A study's results by variant: means over seeds with confidence intervals."""

import functools
import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pairform.experiments.results.records import Trial, first_variant, result_of, trials_of

CONFIDENCE = 0.95
PANELS = 2000
"""Number of panels in Simpson's rule."""
QUALITY = ("loss", "accuracy", "exact_match")


def summarise(study: Path) -> list[dict[str, Any]]:
    """Summarise a study: one row per variant, in the study's order.

    Returns:
        For each variant, `trials`: their number by status; `results`: the mean, half-width of the confidence interval (None for
        fewer than two values) and number of seeds of each measure; `rank` by loss, as in `ranks`; `difference`: of loss and
        accuracies from the first variant at the same point of the grid, paired by seed, so that the noise they share cancels;
        and `match`: its size against the first variant's, in a study that scales variants.

    Raises:
        OutputError: `study` is not a study's folder.
    """
    groups = trials_by_variant(study)
    results = {
        variant: {trial.seed: result_of(study, trial.name) for trial in own if trial.status == "done"}
        for variant, own in groups.items()
    }
    first = first_variant(study)
    rank = ranks(groups, results)
    rows: list[dict[str, Any]] = []
    for variant, own in groups.items():
        row: dict[str, Any] = {"variant": variant, "trials": dict(Counter(trial.status for trial in own))}
        row["rank"] = rank.get(variant)
        row["results"] = means(list(results[variant].values()))
        compared = f"{first} {own[0].point}".strip()
        if compared != variant and (paired := differences(results[variant], results.get(compared, {}))):
            row["difference"] = means(paired)
        if (match := own[0].match) is not None:
            row["match"] = match.model_dump() | {"difference": match.difference}
        rows.append(row)
    return rows


def trials_by_variant(study: Path) -> dict[str, list[Trial]]:
    """The trials of a study by variant, both in the study's order; `OutputError` if there is no study."""
    groups: dict[str, list[Trial]] = defaultdict(list)
    for trial in sorted(trials_of(study), key=lambda trial: trial.number):
        groups[trial.variant].append(trial)
    return groups


def ranks(groups: Mapping[str, list[Trial]], results: Mapping[str, dict[int, dict[str, Any]]]) -> dict[str, int]:
    """Ranks from 1 of the variants whose trials have all ended, by mean loss; ties share a rank.

    A mean over the seeds that did not fail says nothing about the others, so a variant ranks after those with fewer failed
    seeds, whatever its loss.
    """
    keys: dict[str, tuple[int, float]] = {}
    for variant, trials in groups.items():
        states = Counter(trial.status for trial in trials)
        if states.keys() <= {"done", "failed"}:
            losses = [result["loss"] for result in results[variant].values() if result.get("loss") is not None]
            keys[variant] = (states["failed"], statistics.fmean(losses) if losses else math.inf)
    return {variant: 1 + sum(other < key for other in keys.values()) for variant, key in keys.items()}


def comparisons(rows: Sequence[dict[str, Any]]) -> int:
    """Number of differences from the first variant that have an interval, per measure."""
    return sum(row.get("difference", {}).get("loss", {}).get("half_width") is not None for row in rows)


def family_wise(count: int) -> float:
    """Family-wise error rate of `count` intervals: the probability, if no variant differs from the first, that at least one
    excludes zero. Sidak's upper bound: independent intervals reach it; intervals that share the first variant stay below."""
    return 1 - CONFIDENCE**count


def caution(rows: Sequence[dict[str, Any]]) -> str:
    """A note on multiple comparisons; empty for fewer than two."""
    count = comparisons(rows)
    if count < 2:
        return ""
    return (
        f"Intervals are not corrected for multiple comparisons: among {count} comparisons, at least one {CONFIDENCE:.0%} "
        f"interval excludes zero in up to {family_wise(count):.0%} of studies in which no variant differs from the first."
    )


def differences(own: dict[int, dict[str, Any]], other: dict[int, dict[str, Any]]) -> list[dict[str, float]]:
    """Differences of the quality measures, for each seed that both variants have."""
    return [
        {key: own[seed][key] - other[seed][key] for key in QUALITY if None not in (own[seed].get(key), other[seed].get(key))}
        for seed in own
        if seed in other
    ]


def means(results: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Mean and half-width of each measure."""
    found = {}
    for key in dict.fromkeys(key for result in results for key in result):
        values = [result[key] for result in results if result.get(key) is not None]
        if values:
            mean, half = interval(values)
            found[key] = {"mean": mean, "half_width": half, "seeds": len(values)}
    return found


def interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float | None]:
    """The mean of `values` and the half-width of its confidence interval by Student's t distribution."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, None
    spread = statistics.stdev(values) / math.sqrt(len(values))
    return mean, spread * t_quantile((1 + confidence) / 2, len(values) - 1)


@functools.cache
def t_quantile(probability: float, freedom: int) -> float:
    """Quantile of Student's t distribution at `probability`, which is above one half.

    Substituting x = sqrt(freedom) tan(angle) turns the density into a power of the cosine, integrated by Simpson's rule. SciPy
    is not a dependency.
    """
    # the constant of the density in this variable
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)

    def cumulative(angle: float) -> float:
        step = angle / PANELS
        heights = [math.cos(step * place) ** (freedom - 1) for place in range(PANELS + 1)]
        inner = 4 * sum(heights[1:-1:2]) + 2 * sum(heights[2:-1:2])
        return 0.5 + scale * step / 3 * (heights[0] + inner + heights[-1])

    low, high = 0.0, math.pi / 2
    for _ in range(60):  # halvings, to the last bit of a float
        middle = (low + high) / 2
        low, high = (middle, high) if cumulative(middle) < probability else (low, middle)
    return math.sqrt(freedom) * math.tan(low)
