"""How precisely the differences of a study are known."""

from collections.abc import Collection
from pathlib import Path

from pairform.experiments.results.records import first_variant
from pairform.experiments.results.summary import compared, results_of, rules_of, trials_by_variant
from pairform.experiments.results.sweeps import RECIPES, Recipe, tuned_values
from pairform.experiments.statistics.comparisons import Comparison
from pairform.experiments.study.factor_results import factor_results


def precise(study: Path, half_width: float, seeds: int) -> bool:
    """Whether every difference in loss has an interval of at most this half-width, from the first `seeds` seeds alone.

    In a study of factors, these are their main effects; in one that tunes, those of both comparisons. Variants with failed
    trials do not count.
    """
    return all(
        each.half_width is not None and each.half_width <= half_width
        for recipe in (RECIPES if tuned_values(study) else RECIPES[:1])
        for each in comparisons_of(study, frozenset(range(seeds)), recipe)
    )


def comparisons_of(study: Path, among: Collection[int], recipe: Recipe) -> list[Comparison]:
    """The comparisons of loss, from some seeds."""
    if found := factor_results(study, among, recipe):
        (losses,) = (each for each in found if each.measure == "loss")
        return [effect.comparison for effect in losses.effects if effect.comparison is not None]
    groups = trials_by_variant(study, recipe)
    sound = {name: own for name, own in groups.items() if all(trial.status != "failed" for trial in own)}
    points = {name: own[0].point for name, own in sound.items()}
    rows = compared(results_of(study, groups, among), points, first_variant(study), rules_of(study))
    return [each for found in rows.values() for each in found if each.measure == "loss"]
