"""Iso-FLOP curves: the loss against the number of parameters at equal compute (Hoffmann et al. 2022, section 3.2)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pairform.experiments.statistics.scaling import (
    FEWEST_SIZES,
    MOST_LEVERAGE,
    RESAMPLES,
    Estimate,
    Observation,
    estimate,
    level_of,
    tail_probability,
)

COEFFICIENTS = 3


@dataclass(frozen=True)
class IsoFlop:
    """Losses at one amount of compute, and the number of parameters at the minimum of a parabola in log N.

    sizes: number of parameters -> mean loss.
    best:  not identified if the parabola has no minimum between the smallest and the largest size.
    """

    flops: float
    sizes: dict[float, float]
    best: Estimate


def iso_flops(points: Sequence[Observation], resamples: int = RESAMPLES) -> list[IsoFlop]:
    """The curve of each amount of compute that three or more sizes are trained with."""
    found = []
    levels = level_of([point.flops for point in points])
    for level in sorted(set(levels)):
        own = [point for point, its in zip(points, levels, strict=True) if its == level]
        sizes = sorted({point.parameters for point in own})
        if len(sizes) >= FEWEST_SIZES:
            means = {size: float(np.mean([each.loss for each in own if each.parameters == size])) for size in sizes}
            found.append(IsoFlop(float(np.mean([point.flops for point in own])), means, minimum(own, resamples)))
    return found


def minimum(points: Sequence[Observation], resamples: int) -> Estimate:
    """The number of parameters at the minimum of the parabola, by resampling residuals."""
    x = np.log([point.parameters for point in points])
    losses = np.array([point.loss for point in points])
    freedom = losses.size - COEFFICIENTS
    if freedom < 1:
        return Estimate(None, None, None)
    middle = x.mean()
    powers = np.vander(x - middle, COEFFICIENTS)
    solve = np.linalg.pinv(powers)
    curve = solve @ losses
    residuals = losses - powers @ curve
    leverage = np.clip((powers * solve.T).sum(1), 0.0, MOST_LEVERAGE)
    widened = residuals / (1 - leverage)
    widened -= widened.mean()
    chosen = np.random.default_rng(0).integers(losses.size, size=(resamples, losses.size))
    drawn = (powers @ curve + widened[chosen]) @ solve.T
    with np.errstate(divide="ignore", invalid="ignore"):
        places = np.where(drawn[:, 0] > 0, -drawn[:, 1] / (2 * drawn[:, 0]), np.nan)
    places = np.clip(np.nan_to_num(places, nan=np.inf), x.min() - middle, x.max() - middle)
    value = -curve[1] / (2 * curve[0]) if curve[0] > 0 else np.inf
    ends = np.exp(x.min()), np.exp(x.max())
    if not ends[0] < np.exp(value + middle) < ends[1]:
        return Estimate(None, None, None)
    return estimate(float(np.exp(value + middle)), np.exp(places + middle), tail_probability(freedom, 1.0), *map(float, ends))
