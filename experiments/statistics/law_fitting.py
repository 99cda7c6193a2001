"""Least squares, robust to outliers, of sums of power laws in log space: many fits at once."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

Values = NDArray[np.float64]
STEEPEST = 4.0
"""Largest exponent of a fit."""
FLATTEST = 1e-3
"""Smallest exponent of a fit, and smallest floor as a fraction of the smallest loss."""
STEPS, TOLERANCE, STUCK = 100, 1e-7, 1e6
"""Largest number of steps of a fit; the relative improvement of the sum of losses, and the damping, that end it."""
EFFICIENT = 1.345
"""Bound of Huber's loss in standard deviations: 95 % efficient for normal errors (Huber 1981, "Robust statistics")."""
FLOORS, EXPONENTS = (0.05, 0.5, 0.9), (0.1, 0.4, 1.0)
"""Starts of a fit: floors as fractions of the smallest loss, and exponents."""


class Design(NamedTuple):
    """What losses are fitted to: `loss = exp(e) + sum_t exp(c[v, t]) * exp(-g[t] * x[t])` of variant v.

    x:        logarithms of the regressors, centred.
    variant:  the variant of each loss.
    variants: number of variants. They share the floor and the exponents.
    """

    x: Float[NDArray[np.float64], "losses terms"]
    variant: Int[NDArray[np.int64], " losses"]
    variants: int

    @property
    def terms(self) -> int:
        return int(self.x.shape[1])

    @property
    def parameters(self) -> int:
        """Number of parameters: e, then c by variant and term, then g by term."""
        return 1 + (self.variants + 1) * self.terms

    def predict(self, theta: Values) -> tuple[Values, Values]:
        """The logarithms of the losses, `[fits, losses]`, and their derivatives, `[fits, losses, parameters]`."""
        fits, terms = len(theta), self.terms
        exponents = theta[:, -terms:]
        heights = theta[:, 1:-terms].reshape(fits, self.variants, terms)[:, self.variant]
        parts = np.concatenate((np.broadcast_to(theta[:, :1, None], (fits, len(self.x), 1)), heights), axis=-1)
        parts[..., 1:] -= exponents[:, None] * self.x
        largest = parts.max(-1, keepdims=True)
        shares = np.exp(parts - largest)
        total = shares.sum(-1, keepdims=True)
        shares /= total
        slopes = np.zeros((fits, len(self.x), self.parameters))
        slopes[..., 0] = shares[..., 0]
        for term in range(terms):
            place = 1 + self.variant * terms + term
            slopes[:, np.arange(len(self.x)), place] = shares[..., 1 + term]
            slopes[..., -terms + term] = -shares[..., 1 + term] * self.x[:, term]
        return (largest + np.log(total))[..., 0], slopes

    def bounds(self, smallest: float) -> tuple[Values, Values]:
        """The least and the largest value of each parameter. smallest: the smallest loss."""
        low, high = np.full(self.parameters, -60.0), np.full(self.parameters, 60.0)
        low[0], high[0] = np.log(smallest * FLATTEST), np.log(smallest * 1.2)
        low[-self.terms :], high[-self.terms :] = FLATTEST, STEEPEST
        return low, high

    def starts(self, losses: Values) -> Values:
        """Parameters to start fits from: a grid of floors and exponents, with coefficients that fit these."""
        found = []
        for floor in FLOORS:
            for exponents in np.stack(np.meshgrid(*[EXPONENTS] * self.terms), -1).reshape(-1, self.terms):
                powers = np.exp(-exponents * self.x)
                least = floor * losses.min()
                heights = []
                for variant in range(self.variants):
                    own = self.variant == variant
                    solved, *_ = np.linalg.lstsq(powers[own], losses[own] - least)
                    heights += list(np.log(np.maximum(solved, 1e-3 * losses.mean())))
                found.append([np.log(least), *heights, *exponents])
        return np.array(found)


def fit(design: Design, losses: Values) -> tuple[Values, float]:
    """The best fit of all starts, and the bound of Huber's loss that it is fitted with.

    The bound follows from the residuals of a first fit (their median absolute deviation), since it is a property of the noise.
    """
    targets = np.log(losses)[None]
    theta = best(design, design.starts(losses), targets, 0.1)
    for _ in range(2):
        residuals = targets - design.predict(theta)[0]
        freedom = max(1, losses.size - design.parameters)
        spread = 1.4826 * float(np.median(np.abs(residuals))) * np.sqrt(losses.size / freedom)
        bound = max(EFFICIENT * spread, 1e-6)
        theta = best(design, theta, targets, bound)
    return theta[0], bound


def best(design: Design, starts: Values, targets: Values, bound: float) -> Values:
    """The best of several fits, `[1, parameters]`."""
    theta, cost = refit(design, starts, targets, bound)
    return theta[[int(np.argmin(cost))]]


def refit(design: Design, theta: Values, targets: Values, bound: float) -> tuple[Values, Values]:
    """Levenberg-Marquardt steps with the weights of Huber's loss, for many fits at once.

    Args:
        design: What is fitted.
        theta: Starts, `[fits, parameters]`.
        targets: Logarithms of losses, `[fits or 1, losses]`.
        bound: Residual beyond which Huber's loss is linear.

    Returns:
        Parameters, and the sum of Huber's losses of each fit.
    """
    low, high = design.bounds(float(np.exp(targets.min())))
    theta = np.clip(theta, low, high)
    targets = np.broadcast_to(targets, (len(theta), targets.shape[-1]))
    damping = np.full(len(theta), 1e-2)
    predicted, slopes = design.predict(theta)
    cost = huber(targets - predicted, bound).sum(-1)
    diagonal = np.arange(design.parameters)
    moving = np.arange(len(theta))  # the fits that have not converged: `predicted`, `slopes` and `damping` are of these
    for _ in range(STEPS):
        residuals = targets[moving] - predicted
        weights = np.minimum(1.0, bound / np.maximum(np.abs(residuals), 1e-300))
        weighted = slopes * weights[..., None]
        normal = np.swapaxes(weighted, 1, 2) @ slopes
        gradient = (weighted * residuals[..., None]).sum(1)
        normal[:, diagonal, diagonal] *= 1 + damping[:, None]
        normal[:, diagonal, diagonal] += 1e-12
        moved = np.clip(theta[moving] + np.linalg.solve(normal, gradient[..., None])[..., 0], low, high)
        moved_predicted, moved_slopes = design.predict(moved)
        moved_cost = huber(targets[moving] - moved_predicted, bound).sum(-1)
        better = moved_cost <= cost[moving]
        left = np.where(better, cost[moving] - moved_cost > TOLERANCE * cost[moving], damping < STUCK)
        theta[moving[better]], cost[moving[better]] = moved[better], moved_cost[better]
        predicted[better], slopes[better] = moved_predicted[better], moved_slopes[better]
        damping = np.clip(np.where(better, damping / 4, damping * 6), 1e-9, None)
        moving, predicted, slopes, damping = moving[left], predicted[left], slopes[left], damping[left]
        if not moving.size:
            break
    return theta, cost


def huber(residuals: Values, bound: float) -> Values:
    """Huber's loss: half the square up to `bound`, and linear beyond."""
    size = np.abs(residuals)
    found: Values = np.where(size <= bound, size**2 / 2, bound * (size - bound / 2))
    return found
