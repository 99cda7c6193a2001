"""Scaling laws of synthetic losses with known exponents: fits, their intervals, multipliers and iso-FLOP curves."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from scipy.optimize import minimize

from pairform.experiments.statistics.iso_flops import iso_flops
from pairform.experiments.statistics.law_fitting import fit, huber
from pairform.experiments.statistics.scaling import Observation, design_of, fit_law, law_of, multiplier

LADDERS, RESAMPLES = 100, 300
NOISE = 0.005
"""Standard deviation of the logarithm of a loss between seeds: that of small language models is 0.3 to 1 %."""
SIZES, TOKENS, SEEDS = (1e5, 1e6, 1e7), (1e7, 1e8, 1e9), (0, 1, 2)
E, A, ALPHA, B, BETA, K, GAMMA = 1.7, 400.0, 0.34, 410.0, 0.28, 600.0, 0.16


def hoffmann(size: float, tokens: float) -> float:
    return E + A / size**ALPHA + B / tokens**BETA


def at(size: float, tokens: float, seed: int, loss: float) -> Observation:
    return Observation(f"{size} {tokens}", seed, size, tokens, 6 * size * tokens, loss)


def ladder(
    loss: Callable[[float, float], float],
    random: np.random.Generator,
    cells: Sequence[tuple[float, float]],
    noise: float = NOISE,
) -> list[Observation]:
    """Losses with noise, of each number of parameters and tokens with each seed; C = 6 N D."""
    return [
        at(size, tokens, seed, loss(size, tokens) * math.exp(noise * random.standard_normal()))
        for size, tokens in cells
        for seed in SEEDS
    ]


FACTORIAL = [(size, tokens) for size in SIZES for tokens in TOKENS]
RAY = [(size, 20 * size) for size in np.geomspace(1e6, 3e9, 4)]
"""Sizes whose tokens grow in proportion."""


def of_compute(size: float, tokens: float) -> float:
    return E + K / (6 * size * tokens) ** GAMMA


@pytest.mark.parametrize(
    ("law", "cells", "truth", "widest"),
    [
        (hoffmann, FACTORIAL, {"alpha": ALPHA, "beta": BETA, "E": E}, {"alpha": 0.03, "beta": 0.08}),
        (of_compute, RAY, {"gamma": GAMMA, "E": E}, {"gamma": 0.06}),
    ],
    ids=["L(N, D)", "L(C)"],
)
def test_known_exponents_are_recovered_within_their_intervals(
    law: Callable[[float, float], float], cells: list[tuple[float, float]], truth: dict[str, float], widest: dict[str, float]
) -> None:
    """In at least 95 of 100 ladders, by intervals that are not wider than the noise makes them.

    The interval of the floor is not as good: it held the true one in 94 % of 400 other ladders.
    """
    hits = dict.fromkeys(truth, 0)
    widths: dict[str, list[float]] = {name: [] for name in widest}
    for number in range(LADDERS):
        found = fit_law(ladder(law, np.random.default_rng([11, number]), cells), RESAMPLES)
        assert found is not None
        for name, value in truth.items():
            interval = found.parameters[name]
            assert interval.low is not None
            assert interval.high is not None
            hits[name] += interval.low <= value <= interval.high
            if name in widest:
                widths[name].append(interval.high - interval.low)
    assert all(count >= (90 if name == "E" else 95) for name, count in hits.items()), hits
    assert all(np.median(widths[name]) <= most for name, most in widest.items())


@pytest.mark.parametrize(
    ("law", "variant", "cells"),
    [
        (hoffmann, lambda size, tokens: E + A / (size * 1.3) ** ALPHA + B / (tokens * 1.2) ** BETA, FACTORIAL),
        (of_compute, lambda size, tokens: E + K / (1.3 * 1.2 * 6 * size * tokens) ** GAMMA, RAY),
    ],
    ids=["L(N, D)", "L(C)"],
)
def test_known_compute_multipliers_are_recovered_within_their_intervals(
    law: Callable[[float, float], float],
    variant: Callable[[float, float], float],
    cells: list[tuple[float, float]],
) -> None:
    """A variant that makes N worth 1.3 and D worth 1.2 times as much is worth 1.3 times 1.2 as much compute."""
    hits, widths, checks = 0, [], []
    for number in range(LADDERS):
        random = np.random.default_rng([12, number])
        found = multiplier(ladder(law, random, cells), ladder(variant, random, cells), RESAMPLES)
        assert found is not None
        low, high = found.estimate.low, found.estimate.high
        assert low is not None
        assert high is not None
        hits += low <= 1.3 * 1.2 <= high
        widths.append(math.log(high / low))
        assert found.interpolated is not None
        checks.append(found.interpolated)
    assert hits >= 95
    assert np.median(widths) < 0.3
    assert np.median(checks) == pytest.approx(1.3 * 1.2, rel=0.25)


def test_a_fit_is_the_best_that_lbfgs_finds_too() -> None:
    """The same losses, Huber's with the same bound, minimised by scipy from the same starts."""
    points = ladder(hoffmann, np.random.default_rng(0), FACTORIAL)
    design, _, losses = design_of("parameters_tokens", [points])
    theta, bound = fit(design, losses)

    def cost(parameters: np.ndarray) -> float:
        return float(huber(np.log(losses) - design.predict(parameters[None])[0][0], bound).sum())

    low, high = design.bounds(float(losses.min()))
    options = {"maxiter": 5000, "ftol": 1e-14, "gtol": 1e-12}
    bounds = list(zip(low, high, strict=True))
    found = [minimize(cost, start, method="L-BFGS-B", bounds=bounds, options=options).fun for start in design.starts(losses)]
    assert cost(theta) <= min(found) * (1 + 1e-5)


def test_what_a_design_identifies() -> None:
    random = np.random.default_rng(0)
    assert law_of(ladder(hoffmann, random, FACTORIAL)) == "parameters_tokens"
    assert law_of(ladder(hoffmann, random, RAY)) == "compute"
    assert law_of(ladder(hoffmann, random, RAY[:2])) is None
    assert law_of([Observation("", 0, 1e6, 0, 0, 2.0)] * 3) is None
    assert fit_law(ladder(hoffmann, random, RAY[:2])) is None


def test_a_floor_that_losses_do_not_show_is_not_a_number() -> None:
    """Without a floor, and with noise: the law may have any small one."""
    found = fit_law(ladder(lambda size, tokens: K / (size * tokens) ** 0.05, np.random.default_rng(0), RAY), RESAMPLES)
    assert found is not None
    assert found.parameters["E"].value is None
    few = fit_law([each for each in ladder(of_compute, np.random.default_rng(0), RAY[:3]) if each.seed == 0])
    assert few is not None
    assert {each.value for each in few.parameters.values()} == {None}


def test_ten_seeds_are_resampled_as_seeds() -> None:
    """A seed's data are those of all its trials, so that its losses are off together."""
    hits = 0
    for number in range(40):
        random = np.random.default_rng([13, number])
        shared = 0.003 * random.standard_normal(12)
        points = [
            at(size, tokens, seed, of_compute(size, tokens) * math.exp(shared[seed] + noise))
            for size, tokens in RAY
            for seed, noise in enumerate(0.003 * random.standard_normal(12))
        ]
        found = fit_law(points, RESAMPLES)
        assert found is not None
        assert found.resampled == "seeds"
        gamma = found.parameters["gamma"]
        assert gamma.low is not None
        assert gamma.high is not None
        hits += gamma.low <= GAMMA <= gamma.high
    assert hits >= 36


def test_the_minimum_of_an_iso_flop_curve() -> None:
    """Of losses on a parabola in log N; and near the minimum of L(N, D) at equal compute, which is no parabola."""
    compute, best = 6e15, 7e6
    cells = [(size, compute / 6 / size) for size in np.geomspace(1e6, 4e7, 5)]
    hits, random = 0, np.random.default_rng(14)
    for _ in range(LADDERS):
        (curve,) = iso_flops(ladder(lambda size, _: 2 + 0.02 * math.log(size / best) ** 2, random, cells), RESAMPLES)
        assert curve.flops == pytest.approx(compute)
        assert len(curve.sizes) == 5
        assert curve.best.low is not None
        assert curve.best.high is not None
        hits += curve.best.low <= best <= curve.best.high
    assert hits >= 95
    found = []
    for _ in range(10):
        (curve,) = iso_flops(ladder(hoffmann, random, cells, 0.001), RESAMPLES)
        found.append(curve.best.value or math.nan)
    least = min(np.geomspace(1e6, 4e7, 4000), key=lambda size: hoffmann(size, compute / 6 / size))
    assert np.median(found) == pytest.approx(least, rel=0.3)
    (tilted,) = iso_flops(ladder(lambda size, _: 3 - 0.1 * math.log(size / 1e6), random, cells), RESAMPLES)
    assert tilted.best.value is None


def test_what_two_variants_share_cancels_in_their_multiplier() -> None:
    """Losses with the same seed at the same point are off together, so that the interval is narrower than from others."""
    hits, widths = 0, {"shared": [0.0] * 0, "own": [0.0] * 0}
    for number in range(40):
        for kind, found in widths.items():
            random = np.random.default_rng([15, number])
            shared = {(cell, seed): 0.005 * random.standard_normal() for cell in RAY for seed in SEEDS}
            groups = []
            for worth in (1.0, 1.5):
                if kind == "own" and worth > 1:
                    shared = {key: 0.005 * random.standard_normal() for key in shared}
                noise = {key: off + 0.001 * random.standard_normal() for key, off in shared.items()}
                groups.append(
                    [
                        at(*cell, seed, of_compute(cell[0], worth * cell[1]) * math.exp(off))
                        for (cell, seed), off in noise.items()
                    ]
                )
            estimate = (multiplier(groups[0], groups[1], RESAMPLES) or pytest.fail("not identified")).estimate
            assert estimate.low is not None
            assert estimate.high is not None
            found.append(math.log(estimate.high / estimate.low))
            hits += kind == "shared" and estimate.low <= 1.5 <= estimate.high
    assert hits >= 37
    assert np.median(widths["shared"]) < 0.5 * np.median(widths["own"])
