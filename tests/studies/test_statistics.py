"""The statistics of comparisons: against SciPy, and simulated."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pairform.experiments.statistics.comparisons import compare
from pairform.experiments.statistics.corrections import Correction, adjust
from pairform.experiments.statistics.estimates import of_groups, of_pairs
from pairform.experiments.statistics.intervals import interval, t_quantile
from pairform.experiments.statistics.power import detectable, deviation_interval, power, seeds_needed
from pairform.experiments.statistics.rules import ComparisonSpec

stats = pytest.importorskip("scipy.stats")
RULES = ComparisonSpec()
P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=20)


def test_intervals_and_tests_are_those_of_scipy() -> None:
    for seeds in (3, 5, 16):
        values = np.random.default_rng(seeds).normal(0.3, 1, seeds)
        mean, half = interval(values.tolist())
        low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
        assert half is not None
        assert (mean - half, mean + half) == pytest.approx((low, high))
        assert of_pairs(values.tolist()).p == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    assert t_quantile(0.975, 4) == pytest.approx(2.776, abs=1e-3)


@pytest.mark.parametrize(("one", "other"), [(3, 3), (3, 16), (5, 4)])
def test_groups_without_pairs_are_compared_as_scipy_does_by_welch(one: int, other: int) -> None:
    random = np.random.default_rng(one * other)
    values, others = random.normal(0.3, 1, one), random.normal(0, 3, other)
    found, wanted = of_groups(values.tolist(), others.tolist()), stats.ttest_ind(values, others, equal_var=False)
    low, high = wanted.confidence_interval(0.95)
    assert (found.p, found.freedom) == pytest.approx((wanted.pvalue, wanted.df))
    assert (found.mean - found.half_width, found.mean + found.half_width) == pytest.approx((low, high))


def test_groups_that_do_not_vary_differ_or_not() -> None:
    assert of_groups([1.0] * 3, [1.0] * 4).p == 1
    assert of_groups([1.0] * 3, [2.0] * 4).p == 0


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_than_three_seeds_have_no_interval(count: int) -> None:
    assert interval([1.0, 2.0][:count])[1] is None
    found = compare({"a": [1.0, 2.0][:count]}, "loss", RULES)["a"]
    assert (found.verdict, found.half_width, found.p) == ("few_seeds", None, None)
    assert found.sentence(RULES) == f"{count} of at least 3 seeds that an interval of the loss needs."


@given(P_VALUES)
def test_benjamini_hochberg_is_that_of_scipy(values: list[float]) -> None:
    assert adjust(values, "benjamini_hochberg") == pytest.approx(stats.false_discovery_control(values).tolist())


@given(P_VALUES, st.floats(1e-6, 1))
def test_holm_finds_what_its_steps_find(values: list[float], rate: float) -> None:
    """Step down through the sorted p-values, each against the rate divided by the number that are left."""
    found = set()
    for rank, place in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        if values[place] * (len(values) - rank) >= rate:
            break
        found.add(place)
    assert {place for place, value in enumerate(adjust(values, "holm")) if value < rate} == found


def test_no_correction_leaves_p_values_as_they_are() -> None:
    assert adjust([0.5, 0.01], "none") == [0.5, 0.01]


@pytest.mark.parametrize(("seeds", "shift"), [(3, 2.0), (5, 1.0), (16, 0.8), (16, 0.0)])
def test_power_is_that_of_the_noncentral_t_distribution(seeds: int, shift: float) -> None:
    bound = stats.t.ppf(0.975, seeds - 1)
    other = stats.nct(seeds - 1, shift * seeds**0.5)
    assert power(shift, 1.0, seeds, 0.05) == pytest.approx(other.sf(bound), abs=1e-9)


@given(st.floats(1e-6, 1e3), st.integers(3, 40), st.sampled_from([0.05, 0.05 / 12]))
def test_what_is_detectable_is_found_with_the_power_wanted(deviation: float, seeds: int, rate: float) -> None:
    seen = detectable(deviation, seeds, rate)
    assert power(seen, deviation, seeds, rate) == pytest.approx(0.8, abs=1e-6)
    assert seeds_needed(seen * 1.0001, deviation, rate) == seeds


def test_a_difference_that_no_number_of_seeds_finds() -> None:
    assert seeds_needed(1e-4, 1.0, 0.05) is None


def test_the_interval_of_a_deviation_holds_it() -> None:
    draws = np.random.default_rng(0).normal(0, 2.0, (4000, 5)).std(axis=1, ddof=1)
    held = [low <= 2.0 <= high for low, high in (deviation_interval(each, 5, 0.9) for each in draws)]
    assert sum(held) / 4000 == pytest.approx(0.9, abs=0.015)


@pytest.mark.parametrize("seeds", [3, 5, 16])
def test_intervals_hold_the_mean_as_often_as_they_say(seeds: int) -> None:
    numbers = np.random.default_rng(seeds).normal(7.0, 2.0, (4000, seeds)).tolist()
    held = [abs(mean - 7.0) <= half for mean, half in map(interval, numbers) if half is not None]
    assert sum(held) / 4000 == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize("correction", ["holm", "benjamini_hochberg"])
def test_null_studies_make_a_false_finding_as_rarely_as_allowed(correction: Correction) -> None:
    """1,000 studies of 12 variants and a first one, 5 seeds, that differ by noise alone; a seed's own noise drops out."""
    rules, numbers, false = ComparisonSpec(correction=correction), np.random.default_rng(1), 0
    for _ in range(1000):
        losses = numbers.normal(size=(13, 5)) + 3 * numbers.normal(size=5)
        found = compare({str(name): row for name, row in enumerate((losses[1:] - losses[0]).tolist())}, "loss", rules)
        false += any(each.verdict in ("lower", "higher") for each in found.values())
    assert false / 1000 <= 0.055


def test_without_a_correction_false_findings_are_many() -> None:
    rules, numbers, false = ComparisonSpec(correction="none"), np.random.default_rng(1), 0
    for _ in range(300):
        losses = numbers.normal(size=(13, 5))
        found = compare({str(name): row for name, row in enumerate((losses[1:] - losses[0]).tolist())}, "loss", rules)
        false += any(each.verdict in ("lower", "higher") for each in found.values())
    assert false / 300 > 0.25


@pytest.mark.parametrize(("seeds", "variants"), [(5, 1), (8, 12)])
def test_a_detectable_difference_is_found_as_often_as_planned(seeds: int, variants: int) -> None:
    """One variant differs by what the design can see; the others do not."""
    numbers = np.random.default_rng(seeds)
    seen, found = detectable(2**0.5, seeds, RULES.error_rate / variants), 0
    for _ in range(1000):
        losses = numbers.normal(size=(variants + 1, seeds))
        losses[1] -= seen
        rows = {str(name): row for name, row in enumerate((losses[1:] - losses[0]).tolist())}
        found += compare(rows, "loss", RULES)["0"].verdict == "lower"
    assert found / 1000 == pytest.approx(0.8, abs=0.05)


def test_each_verdict_has_its_sentence() -> None:
    rules = ComparisonSpec(margins={"loss": 0.1})
    differences = {
        "better": [-1.0, -1.01, -0.99, -1.0],
        "slightly worse": [0.010, 0.011, 0.009, 0.010],
        "as good": [0.02, -0.02, 0.01, -0.01],
        "unclear": [1.0, -1.0, 0.5, -0.3],
        "alone": [0.5, 0.8, 0.9, 0.3],
        "same": [0.0, 0.0, 0.0, 0.0],
        "short": [0.5, 0.6],
    }
    found = compare(differences, "loss", rules)
    assert {name: each.verdict for name, each in found.items()} == {
        "better": "lower",
        "slightly worse": "higher",
        "as good": "equivalent",
        "unclear": "not_found",
        "alone": "uncorrected",
        "same": "identical",
        "short": "few_seeds",
    }
    said = {name: each.sentence(rules) for name, each in found.items()}
    correction = "after Holm correction for 6 comparisons"
    assert said["better"].startswith("loss lower by 1.0000: 95% interval -1.0130 to -0.9870, p = ")
    assert said["better"].endswith(f"{correction}.")
    assert "loss higher by 0.0100, within the margin of 0.1000: " in said["slightly worse"]
    assert said["as good"].startswith("equivalent in loss within 0.1000: 95% interval -0.0")
    assert said["unclear"].startswith("no difference in loss found: 95% interval -")
    assert "; this design could see " in said["unclear"]
    assert " excludes zero, but p = " in said["alone"]
    assert said["same"] == "no difference in loss with any seed."
    assert said["short"] == "2 of at least 3 seeds that an interval of the loss needs."
    free = ComparisonSpec(correction="none")
    assert "correction" not in compare(differences, "loss", free)["better"].sentence(free)
