"""Effects of factors: marginal means of levels, their differences, and interactions of two factors, paired by seed."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pairform.experiments.statistics.comparisons import Comparison, compare
from pairform.experiments.statistics.intervals import interval
from pairform.experiments.statistics.rules import ComparisonSpec, Quality

Values = NDArray[np.float64]
DIGITS = 12
"""Of an effect, relative to the largest value: those after them are rounding errors."""


@dataclass(frozen=True)
class Effect:
    """A level of a factor.

    mean:       of the measure, over the levels of all other factors alike.
    half_width: of its 95 % confidence interval; None for fewer than three seeds.
    comparison: with the factor's first level; None for that level.
    """

    factor: str
    level: str
    mean: float
    half_width: float | None
    seeds: int
    comparison: Comparison | None


@dataclass(frozen=True)
class Interaction:
    """How much the difference between two levels of one factor changes between two levels of another.

    levels: by factor, the levels that are compared with the first ones.
    """

    levels: Mapping[str, str]
    comparison: Comparison


def effects(
    factors: Mapping[str, Sequence[str]],
    cells: Sequence[Mapping[str, str]],
    values: Values,
    measure: Quality,
    rules: ComparisonSpec,
) -> list[Effect]:
    """Marginal means and main effects, by least squares without interactions.

    Args:
        factors: Levels by factor.
        cells: The combinations that were run.
        values: `[cells, seeds]`.
        measure: What was measured.
        rules: The study's rules.

    Returns:
        One for each level; none if the combinations cannot tell the factors apart.
    """
    columns, design = model_matrix(factors, cells)
    if np.linalg.matrix_rank(design) < design.shape[1]:
        return []
    fitted = exact(np.linalg.lstsq(design, values)[0], values)
    found = {each: fitted[1 + place] for place, each in enumerate(columns)}
    level_means = {
        factor: sum(found[factor, level] for level in levels[1:]) / len(levels) for factor, levels in factors.items()
    }
    grand = fitted[0] + sum(level_means.values())
    compared = compare({f"{factor}={level}": found[factor, level].tolist() for factor, level in columns}, measure, rules)
    rows = []
    for factor, levels in factors.items():
        for level in levels:
            own = exact(grand - level_means[factor] + found.get((factor, level), 0.0), values)
            mean, half = interval(own.tolist())
            rows.append(Effect(factor, level, mean, half, len(own), compared.get(f"{factor}={level}")))
    return rows


def model_matrix(
    factors: Mapping[str, Sequence[str]], cells: Sequence[Mapping[str, str]]
) -> tuple[list[tuple[str, str]], NDArray[Any]]:
    """The matrix of least squares, `[cells, 1 + columns]`, and the factor and level of each column after the first."""
    columns = [(factor, level) for factor, levels in factors.items() for level in levels[1:]]
    return columns, np.array([[1.0, *(float(cell[factor] == level) for factor, level in columns)] for cell in cells])


def effect_deviations(factors: Mapping[str, Sequence[str]], cells: Sequence[Mapping[str, str]]) -> dict[str, float]:
    """By factor, the standard deviation of its noisiest main effect, divided by that of the difference between two cells.

    Empty if the combinations cannot tell the factors apart.
    """
    columns, design = model_matrix(factors, cells)
    if np.linalg.matrix_rank(design) < design.shape[1]:
        return {}
    variances = np.diag(np.linalg.inv(design.T @ design))[1:] / 2  # a difference has twice the variance of a cell
    found: dict[str, float] = {}
    for (factor, _), variance in zip(columns, variances, strict=True):
        found[factor] = max(found.get(factor, 0.0), math.sqrt(variance))
    return found


def exact(found: Values, values: Values) -> Values:
    """Numbers computed from `values` without the digits that rounding errors fill, so that no effect is exactly zero.

    Rounding errors are the same with every seed, and would be found as a difference.
    """
    largest = np.abs(values[np.isfinite(values)]).max(initial=0.0)
    return np.round(found, DIGITS - math.ceil(math.log10(largest))) if largest else found


def interactions(
    pairs: Iterable[tuple[str, str]],
    factors: Mapping[str, Sequence[str]],
    cells: Sequence[Mapping[str, str]],
    values: Values,
    measure: Quality,
    rules: ComparisonSpec,
) -> list[Interaction]:
    """Interactions of pairs of factors, of each level with the first ones, averaged over all other factors.

    The other arguments are those of `effects`. Levels of which not all four combinations were run are left out.
    """
    differences: dict[str, list[float]] = {}
    levels_of: dict[str, dict[str, str]] = {}
    numbers = {factor: {level: number for number, level in enumerate(levels)} for factor, levels in factors.items()}
    places = {factor: np.array([numbers[factor][cell[factor]] for cell in cells]) for factor in factors}
    for one, other in pairs:
        shape, place = (len(factors[one]), len(factors[other])), (places[one], places[other])
        sums, counts = np.zeros((*shape, values.shape[1])), np.zeros(shape)
        np.add.at(sums, place, values)
        np.add.at(counts, place, 1)
        for first, second in itertools.product(range(1, shape[0]), range(1, shape[1])):
            corners = ((first, second), (0, second), (first, 0), (0, 0))
            if all(counts[corner] for corner in corners):
                both, without, opposite, neither = (sums[corner] / counts[corner] for corner in corners)
                levels = {one: factors[one][first], other: factors[other][second]}
                name = " by ".join(f"{factor}={level}" for factor, level in levels.items())
                differences[name] = exact((both - without) - (opposite - neither), values).tolist()
                levels_of[name] = levels
    compared = compare(differences, measure, rules)
    return [Interaction(levels_of[name], comparison) for name, comparison in compared.items()]
