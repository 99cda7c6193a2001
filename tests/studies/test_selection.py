"""The choice of tuned values, and what it does to the comparison of variants."""

from typing import Any

import numpy as np
import pytest

from pairform.experiments.statistics.comparisons import compare
from pairform.experiments.statistics.rules import ComparisonSpec
from pairform.experiments.statistics.selection import close_calls, edge, lowest

STUDIES, VARIANTS, SETTINGS, SEEDS, SWEEP = 1000, 7, 5, 5, 2
MANY = 30
"""Settings of a larger sweep."""


@pytest.mark.parametrize(
    ("settings", "best"),
    [
        ([[3.0, 3.0], [2.0, 2.5], [2.5, 2.5]], 1),
        ([[2.0], [1.0], [1.0]], 1),
        ([[2.0, 2.0], [0.1, None], [3.0, 3.0]], 0),
        ([[None, 2.0], [None, None], [1.5, None]], 2),
        ([[None], [None]], None),
        ([], None),
    ],
    ids=["mean", "the first of equals", "failed seeds lose", "fewer failed seeds", "all failed", "none"],
)
def test_the_lowest_mean_is_chosen(settings: list[list[float | None]], best: int | None) -> None:
    assert lowest(settings) == best


@pytest.mark.parametrize(
    ("values", "chosen", "which"),
    [
        ([0.01, 0.001, 0.1], 0.001, "smallest"),
        ([0.01, 0.001, 0.1], 0.1, "largest"),
        ([0.01, 0.001, 0.1], 0.01, None),
        (["cosine", "constant"], "cosine", None),
        ([True, False], True, None),
        ([None, 1.0, 2.0], 2.0, None),
    ],
)
def test_the_edge_is_that_of_numbers(values: list[Any], chosen: Any, which: str | None) -> None:
    assert edge(values, chosen) == which


def false_findings(losses: np.ndarray[Any, Any], chosen: list[int], seeds: slice) -> bool:
    """Whether a variant is found to differ. losses: `[variants, settings, seeds]`; chosen: a setting for each variant."""
    own = np.stack([losses[variant, setting, seeds] for variant, setting in enumerate(chosen)])
    found = compare({str(name): (own[name] - own[0]).tolist() for name in range(1, VARIANTS)}, "loss", ComparisonSpec())
    return any(each.verdict in ("lower", "higher") for each in found.values())


def best_settings(losses: np.ndarray[Any, Any], seeds: slice) -> list[int]:
    found = [lowest(variant[:, seeds].tolist()) for variant in losses]
    return [setting for setting in found if setting is not None]


def test_variants_that_differ_in_their_optimum_alone_do_not_differ_once_tuned() -> None:
    """Of 1,000 studies with an error rate of 5 %, at most 5.5 % find a difference of tuned variants; at one recipe, nearly
    all do."""
    random = np.random.default_rng(0)
    sweep, fresh = slice(0, SWEEP), slice(SWEEP, SWEEP + SEEDS)
    tuned = same = 0
    for _ in range(STUDIES):
        optima = random.integers(SETTINGS, size=VARIANTS)
        curves = 0.1 * (np.arange(SETTINGS)[None] - optima[:, None]) ** 2
        shared = random.normal(0, 0.1, size=SWEEP + SEEDS)
        losses = 3 + curves[..., None] + shared + random.normal(0, 0.02, size=(VARIANTS, SETTINGS, SWEEP + SEEDS))
        chosen = best_settings(losses, sweep)
        tuned += false_findings(losses, chosen, fresh)
        same += false_findings(losses, [chosen[0]] * VARIANTS, fresh)
    assert tuned <= 0.055 * STUDIES
    assert same >= 0.95 * STUDIES


def test_a_difference_of_the_chosen_settings_is_announced_by_the_sweep() -> None:
    """Where noise may hide the best setting, variants at settings that differ in worth are found to differ. The sweep says
    of them that it does not distinguish the settings; without these, the error rate holds."""
    random = np.random.default_rng(2)
    sweep, fresh = slice(0, SWEEP), slice(SWEEP, SWEEP + SEEDS)
    found = announced = 0
    for _ in range(STUDIES):
        optima = random.integers(SETTINGS, size=VARIANTS)
        curves = 0.03 * (np.arange(SETTINGS)[None] - optima[:, None]) ** 2
        losses = 3 + curves[..., None] + random.normal(0, 0.02, size=(VARIANTS, SETTINGS, SWEEP + SEEDS))
        close = close_calls(losses[..., sweep].tolist())
        assert close is not None
        own = [losses[variant, setting, fresh] for variant, setting in enumerate(best_settings(losses, sweep))]
        differences = {str(name): (own[name] - own[0]).tolist() for name in range(1, VARIANTS)}
        differing = [
            int(name)
            for name, each in compare(differences, "loss", ComparisonSpec()).items()
            if each.verdict in ("lower", "higher")
        ]
        found += bool(differing)
        announced += bool(differing) and all(close[name] or close[0] for name in differing)
    assert found > 0.08 * STUDIES
    assert found - announced <= 0.055 * STUDIES


@pytest.mark.parametrize(
    ("sweeps", "close"),
    [
        ([[[1.0], [2.0]]], None),
        ([[[None, None], [2.0, None]]], None),
        ([[[1.0, 2.0], [1.0, 2.0], [3.0, 4.0]]], [[1]]),
        ([[[1.0, 2.0], [1.1, 2.0], [3.0, 4.05]]], [[1]]),
        ([[[1.0, 2.0], [1.1, 2.0], [0.5, None], [9.0, 10.05]], []], [[1], []]),
    ],
    ids=["one seed", "all failed", "a tie", "a close one", "failed ones do not count"],
)
def test_settings_that_the_noise_may_have_put_second(
    sweeps: list[list[list[float | None]]], close: list[list[int]] | None
) -> None:
    assert close_calls(sweeps) == close


def test_the_seeds_of_the_choice_would_find_what_is_not_there() -> None:
    """Where no setting matters, the losses of one variant vary more between settings, so that its lowest one is lower."""
    random = np.random.default_rng(1)
    sweep, fresh = slice(0, SEEDS), slice(SEEDS, 2 * SEEDS)
    spread = np.array([0.01, *[0.1] * (VARIANTS - 1)])[:, None, None]
    reused = independent = 0
    for _ in range(STUDIES):
        losses = 3 + spread * random.normal(size=(VARIANTS, MANY, 2 * SEEDS))
        chosen = best_settings(losses, sweep)
        reused += false_findings(losses, chosen, sweep)
        independent += false_findings(losses, chosen, fresh)
    assert independent <= 0.055 * STUDIES
    assert reused >= 0.15 * STUDIES
