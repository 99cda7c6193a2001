"""Scaling laws of a ladder of sizes, and how much compute a change of the model is worth.

`parameters_tokens`: L(N, D) = E + A / N^alpha + B / D^beta (Hoffmann et al. 2022, "Training compute-optimal large language
models", section 3.3), where the ladder has several D for each N. `compute`: L(C) = E + K / C^gamma, else.

Intervals are percentiles of refits to resampled losses. With ten seeds or more, whole seeds are resampled; with fewer, the
residuals of the fit, each divided by one minus its leverage, which is what the loss would be off by if the fit did not know it.
Percentiles are those of Student's t (Hesterberg 2015, "What teachers should know about the bootstrap", section 4).
"""

import math
import statistics
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray

from pairform.experiments.statistics.intervals import CONFIDENCE, t_quantile
from pairform.experiments.statistics.law_fitting import FLATTEST, Design, Values, fit, refit

Law = Literal["parameters_tokens", "compute"]
Resampled = Literal["seeds", "residuals"]
RESAMPLES = 1000
MANY_SEEDS = 10
"""Number of seeds from which seeds are resampled: the percentiles of fewer are few."""
MOST_LEVERAGE = 0.95
"""A loss with more leverage determines the fit alone, so that its residual is nearly zero."""
FEWEST_SIZES = 3
SAME = 0.05
"""Relative difference up to which two numbers of tokens or FLOPs count as equal."""
NAMES: dict[Law, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "parameters_tokens": (("A", "B"), ("alpha", "beta")),
    "compute": (("K",), ("gamma",)),
}
"""Coefficients and exponents."""


@dataclass(frozen=True)
class Observation:
    """One trial: its size and point of the grid, its seed, N, D, C and validation loss."""

    cell: str
    seed: int
    parameters: float
    tokens: float
    flops: float
    loss: float


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval. All are None if the losses do not identify it."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class LawFit:
    """A law of one variant. parameters: E, its coefficients and exponents by name."""

    law: Law
    parameters: dict[str, Estimate]
    resampled: Resampled
    losses: int


@dataclass(frozen=True)
class Multiplier:
    """The factor of compute at which the first variant reaches a variant's loss: above 1, the variant saves compute.

    It comes from a fit in which both share the floor and the exponents. Of `parameters_tokens`, it holds for each one's best
    division of compute between N and D.

    interpolated: the same by interpolation between the first variant's losses, as a check: the geometric mean over the
                  variant's points within their range; None without such points.
    """

    law: Law
    estimate: Estimate
    resampled: Resampled
    interpolated: float | None


def law_of(points: Sequence[Observation]) -> Law | None:
    """The law that a ladder's design identifies; None for fewer than three sizes, or untrained ones."""
    if not points or any(min(point.parameters, point.tokens, point.flops, point.loss) <= 0 for point in points):
        return None
    cells = cells_of(points)
    by_size: dict[float, set[int]] = {}
    levels = level_of([mean_of("tokens", cell) for cell in cells])
    for cell, level in zip(cells, levels, strict=True):
        by_size.setdefault(cell[0].parameters, set()).add(level)
    several = sum(len(own) >= 2 for own in by_size.values())
    if several >= FEWEST_SIZES and len(set(levels)) >= FEWEST_SIZES:
        return "parameters_tokens"
    return "compute" if len(set(level_of([mean_of("flops", cell) for cell in cells]))) >= FEWEST_SIZES else None


def cells_of(points: Sequence[Observation]) -> list[list[Observation]]:
    """The trials of each size and point of the grid. If examples differ in length, their D differs a little between seeds."""
    cells: dict[str, list[Observation]] = {}
    for point in points:
        cells.setdefault(point.cell, []).append(point)
    return list(cells.values())


def mean_of(measure: Literal["tokens", "flops", "loss"], cell: Sequence[Observation]) -> float:
    return statistics.fmean(getattr(point, measure) for point in cell)


def level_of(values: Sequence[float]) -> list[int]:
    """Numbers that are equal for values that are as good as equal."""
    order = np.argsort(values, kind="stable")
    ordered = np.asarray(values, dtype=np.float64)[order]
    steps = np.concatenate(([False], ordered[1:] > ordered[:-1] * (1 + SAME)))
    found = np.empty(len(ordered), dtype=np.int64)
    found[order] = np.cumsum(steps)
    return [int(level) for level in found]


def design_of(law: Law, groups: Sequence[Sequence[Observation]]) -> tuple[Design, Values, Values]:
    """The design of some variants, the mean that its regressors are centred by, and their losses."""
    points = [point for group in groups for point in group]
    rows = [(point.parameters, point.tokens) if law == "parameters_tokens" else (point.flops,) for point in points]
    x = np.log(np.array(rows, dtype=np.float64))
    variant = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    middle = x.mean(0)
    return Design(x - middle, variant, len(groups)), middle, np.array([point.loss for point in points])


def fit_law(points: Sequence[Observation], resamples: int = RESAMPLES) -> LawFit | None:
    """The law of one variant that its points identify; None if they identify none."""
    law = law_of(points)
    if law is None:
        return None
    design, middle, losses = design_of(law, [points])
    if losses.size <= design.parameters:
        return LawFit(law, {name: Estimate(None, None, None) for name in ("E", *sum(NAMES[law], ()))}, "residuals", losses.size)
    theta, drawn, tail, resampled = bootstrap(design, points, losses, resamples)
    low, high = design.bounds(float(losses.min()))
    terms, found = design.terms, {"E": estimate(np.exp(theta[0]), np.exp(drawn[:, 0]), tail, np.exp(low[0]), np.exp(high[0]))}
    for term, (coefficient, exponent) in enumerate(zip(*NAMES[law], strict=True)):
        place = design.parameters - terms + term
        power = estimate(theta[place], drawn[:, place], tail, low[place], high[place])
        # the regressors are centred: exp(c) is the value at their mean
        heights = [np.exp(each[..., 1 + term] + each[..., place] * middle[term]) for each in (theta, drawn)]
        known = power.value is not None
        found[coefficient] = estimate(heights[0], heights[1], tail) if known else Estimate(None, None, None)
        found[exponent] = power
    return LawFit(law, found, resampled, losses.size)


def multiplier(first: Sequence[Observation], other: Sequence[Observation], resamples: int = RESAMPLES) -> Multiplier | None:
    """What a variant's change is worth in compute; None if the points of one of both identify no law."""
    laws = {law_of(first), law_of(other)}
    if None in laws:
        return None
    law: Law = "parameters_tokens" if laws == {"parameters_tokens"} else "compute"
    design, middle, losses = design_of(law, [first, other])
    check = interpolated(first, other)
    if losses.size <= design.parameters:
        return Multiplier(law, Estimate(None, None, None), "residuals", check)
    theta, drawn, tail, resampled = bootstrap(design, (*first, *other), losses, resamples)
    cost = [float(np.mean([np.log(each.flops / (each.parameters * each.tokens)) for each in own])) for own in (first, other)]
    values = [worth(design, each, middle, cost) for each in (theta[None], drawn)]
    found = estimate(float(values[0][0]), values[1], tail)
    exponents = drawn[:, -design.terms :]
    if np.mean(np.any(exponents <= 2 * FLATTEST, axis=1)) > (1 - CONFIDENCE) / 2:  # a flat law is reached at no compute
        found = Estimate(None, None, None)
    return Multiplier(law, found, resampled, check)


def worth(design: Design, theta: Values, middle: Values, cost: Sequence[float]) -> Values:
    """The multiplier of each fit of two variants. cost: logarithms of C / (N D)."""
    terms = design.terms
    powers = theta[:, -terms:]
    heights = theta[:, 1:-terms].reshape(-1, 2, terms) + (powers * middle)[:, None]
    if terms == 1:
        ratio: Values = np.exp((heights[:, 0, 0] - heights[:, 1, 0]) / powers[:, 0])
        return ratio
    alpha, beta = powers[:, :1], powers[:, 1:]
    share = beta / (alpha + beta)  # of compute's growth that goes into N
    # the least of A N^-alpha + B D^-beta where N D = C / cost, as (coefficient) * C^-gamma (Hoffmann et al., equation 4)
    split = (np.log(alpha) + heights[..., 0] - np.log(beta) - heights[..., 1]) / (alpha + beta)
    size = split - share * np.array(cost)
    tokens = -split - (1 - share) * np.array(cost)
    whole = np.logaddexp(heights[..., 0] - alpha * size, heights[..., 1] - beta * tokens)
    gamma = (alpha * beta / (alpha + beta))[:, 0]
    found: Values = np.exp((whole[:, 0] - whole[:, 1]) / gamma)
    return found


def bootstrap(
    design: Design, points: Sequence[Observation], losses: Values, resamples: int
) -> tuple[Values, Values, float, Resampled]:
    """The best fit, refits to resampled losses, the probability beyond each end of an interval, and what was resampled.

    The residuals of two variants with the same seed at the same point are drawn together: they share the seed's data.
    """
    theta, bound = fit(design, losses)
    predicted, slopes = (each[0] for each in design.predict(theta[None]))
    residuals = np.log(losses) - predicted
    seeds = together([point.seed for point in points], design.variant)
    if seeds is not None and len(seeds) >= MANY_SEEDS:
        resampled: Resampled = "seeds"
        units, freedom, widening = seeds, len(seeds) - 1, math.sqrt(len(seeds) / (len(seeds) - 1))
    else:
        resampled = "residuals"
        leverage = np.einsum("ij,jk,ik->i", slopes, np.linalg.pinv(slopes.T @ slopes), slopes)
        residuals = residuals / (1 - np.clip(leverage, 0.0, MOST_LEVERAGE))
        residuals -= residuals.mean()
        pairs = together([(point.cell, point.seed) for point in points], design.variant)
        units = np.arange(losses.size)[:, None] if pairs is None else pairs
        freedom, widening = max(1, (losses.size - design.parameters) // units.shape[1]), 1.0
    chosen = np.random.default_rng(0).integers(len(units), size=(resamples, len(units)))
    drawn = np.empty((resamples, losses.size))
    drawn[:, units.ravel()] = residuals[units][chosen].reshape(resamples, -1)
    refits, _ = refit(design, np.repeat(theta[None], resamples, 0), predicted + drawn, bound)
    return theta, refits, tail_probability(freedom, widening), resampled


def together(
    keys: Sequence[Hashable], variant: Int[NDArray[np.int64], " losses"]
) -> Int[NDArray[np.int64], "units each"] | None:
    """The places of the losses with equal keys; None unless each key has losses of the same variants."""
    places: dict[Hashable, list[int]] = {}
    for place, key in enumerate(keys):
        places.setdefault(key, []).append(place)
    kinds = {tuple(variant[own]) for own in places.values()}
    return np.array(list(places.values())) if len(kinds) == 1 else None


def tail_probability(freedom: int, widening: float) -> float:
    """The probability beyond each end of a percentile interval that is as wide as one of Student's t."""
    return math.erfc(t_quantile((1 + CONFIDENCE) / 2, freedom) * widening / math.sqrt(2)) / 2


def estimate(value: float, drawn: Values, tail: float, least: float = -math.inf, most: float = math.inf) -> Estimate:
    """A percentile interval. Not identified if it reaches the ends of what was searched."""
    low, high = (float(end) for end in np.quantile(drawn, (tail, 1 - tail)))
    near = 1e-6
    if not all(map(math.isfinite, (value, low, high))) or low <= least * (1 + near) or high >= most * (1 - near):
        return Estimate(None, None, None)
    return Estimate(float(value), low, high)


def interpolated(first: Sequence[Observation], other: Sequence[Observation]) -> float | None:
    """The multiplier by interpolation of log C in log loss, between the points that have the lowest loss at their compute."""
    known, own = frontier(first), frontier(other)
    if len(known) < 2:
        return None
    flops, losses = np.log(np.array(known)).T
    found = [
        float(np.interp(-math.log(loss), -losses, flops)) - math.log(compute)
        for compute, loss in own
        if losses.min() <= math.log(loss) <= losses.max()
    ]
    return math.exp(sum(found) / len(found)) if found else None


def frontier(points: Sequence[Observation]) -> list[tuple[float, float]]:
    """Compute and mean loss of the sizes and tokens whose loss no smaller compute reaches, by compute."""
    means = sorted((mean_of("flops", cell), mean_of("loss", cell)) for cell in cells_of(points))
    lowest = math.inf
    found = []
    for compute, loss in means:
        if loss < lowest:
            lowest = loss
            found.append((compute, loss))
    return found
