"""Factors: which combinations of their levels are run, and what their effects are."""

import contextlib
import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pairform.experiments.execution.forecast import forecast
from pairform.experiments.report.page import render
from pairform.experiments.report.reading import read_report
from pairform.experiments.results.noise import Noise
from pairform.experiments.results.records import Trial
from pairform.experiments.statistics.effects import effects, interactions
from pairform.experiments.statistics.factorial import alias_groups, generators, runs
from pairform.experiments.statistics.intervals import CONFIDENCE
from pairform.experiments.statistics.rules import ComparisonSpec
from pairform.experiments.study.contents import gather
from pairform.experiments.study.factor_results import factor_results
from pairform.experiments.study.planning import plan_trials, read_study
from pairform.registry import SpecError, merge_patch
from tests.command_line.runner import CommandLine, document
from tests.studies.small_study import STUDY, run, write_study

RULES = ComparisonSpec()
SIZES = {
    3: {3: 4, 4: 8, 5: 8, 6: 8, 7: 8, 8: 16},
    4: {4: 8, 5: 16, 6: 16, 7: 16, 8: 16, 9: 32},
    5: {5: 16, 6: 32, 7: 64, 8: 64},
}
"""Runs of the smallest designs by resolution and number of factors, as in the tables of textbooks."""
FACTORS: dict[str, Any] = {
    "width": {"narrow": {}, "wide": {"decoder": {"layer": {"branches": {"feed_forward": {"hidden": 16}}}}}},
    "rate": {
        "high": {},
        "low": {"training": {"optimizer": {"learning_rate": 1e-4}}},
        "lowest": {"training": {"optimizer": {"learning_rate": 1e-6}}},
    },
}


@pytest.mark.parametrize(("resolution", "factors"), [(each, factors) for each, sizes in SIZES.items() for factors in sizes])
def test_fractions_are_as_small_as_textbooks_say_and_of_their_resolution(resolution: int, factors: int) -> None:
    """Each set of fewer factors than the resolution has all its combinations equally often, and the first run is the base."""
    found = np.array(list(runs(factors, generators(factors, resolution))))
    assert len(found) == SIZES[resolution][factors]
    assert not found[0].any()
    for chosen in itertools.combinations(range(factors), resolution - 1):
        _, counts = np.unique(found[:, chosen], axis=0, return_counts=True)
        assert set(counts) == {len(found) / 2 ** (resolution - 1)}


def test_aliases_are_effects_with_equal_contrasts() -> None:
    names = ["a", "b", "c", "d", "e"]
    for resolution in (3, 4, 5):
        found = np.array(list(runs(5, generators(5, resolution))))
        contrast = {name: 1 - 2 * found[:, place] for place, name in enumerate(names)}
        contrast |= {f"{a} by {b}": contrast[a] * contrast[b] for a, b in itertools.combinations(names, 2)}
        same: dict[tuple[int, ...], set[str]] = {}
        for name, values in contrast.items():
            same.setdefault(tuple(abs(values[0]) * values[0] * values), set()).add(name)
        expected = {frozenset(group) for group in same.values() if len(group) > 1}
        assert {frozenset(group) for group in alias_groups(names, resolution)} == expected
    assert alias_groups(names, 5) == []


def test_effects_and_interactions_are_found_again() -> None:
    factors = {"a": ["0", "1", "2"], "b": ["x", "y"], "c": ["p", "q"]}
    cells = [dict(zip(factors, levels, strict=True)) for levels in itertools.product(*factors.values())]
    truth = np.array([{"0": 0, "1": 0.5, "2": -0.3}[cell["a"]] + 0.2 * (cell["b"] == "y") for cell in cells])
    truth += [0.4 * (cell["a"] == "1" and cell["b"] == "y") for cell in cells]
    seeds = np.random.default_rng(0).normal(size=4)
    values = 3 + truth[:, None] + seeds
    found = {(each.factor, each.level): each for each in effects(factors, cells, values, "loss", RULES)}
    for factor, levels in factors.items():
        for level in levels:
            chosen = [place for place, cell in enumerate(cells) if cell[factor] == level]
            assert found[factor, level].mean == pytest.approx(values[chosen].mean())
            assert (found[factor, level].comparison is None) == (level == levels[0])
    comparison = found["a", "1"].comparison
    assert comparison is not None
    assert comparison.mean == pytest.approx(0.5 + 0.4 / 2), "averaged over the levels of b"
    assert comparison.verdict == "higher"
    pairs = list(itertools.combinations(factors, 2))
    changes = {
        tuple(each.levels.items()): each.comparison for each in interactions(pairs, factors, cells, values, "loss", RULES)
    }
    assert changes[("a", "1"), ("b", "y")].mean == pytest.approx(0.4)
    assert changes[("a", "2"), ("b", "y")].mean == pytest.approx(0, abs=1e-12)
    assert len(changes) == 2 + 2 + 1


@pytest.mark.parametrize("seeds", [[0.1, 0.1, 0.1], [0.08893, 0.1, 0.3]])
def test_rounding_errors_are_no_effects(seeds: list[float]) -> None:
    factors = {"a": ["0", "1", "2"], "b": ["x", "y"]}
    cells = [dict(zip(factors, levels, strict=True)) for levels in itertools.product(*factors.values())]
    lower = [-0.07 * (cell["a"] == "1") for cell in cells]
    values = np.array([seeds] * len(cells)) + np.array(lower)[:, None]
    found = {(each.factor, each.level): each.comparison for each in effects(factors, cells, values, "accuracy", RULES)}
    verdicts = {where: comparison.verdict for where, comparison in found.items() if comparison is not None}
    assert verdicts == {("a", "1"): "lower", ("a", "2"): "identical", ("b", "y"): "identical"}
    for pair in interactions([("a", "b")], factors, cells, values, "accuracy", RULES):
        assert pair.comparison.sentence(RULES, interaction=True) == "no interaction in accuracy with any seed."


def test_intervals_of_effects_hold_the_truth_as_often_as_they_say() -> None:
    factors = {"a": ["0", "1"], "b": ["0", "1"]}
    cells = [dict(zip(factors, levels, strict=True)) for levels in itertools.product(*factors.values())]
    numbers, held = np.random.default_rng(2), 0
    for _ in range(1000):
        values = numbers.normal(size=(4, 5)) + 2 * numbers.normal(size=5)
        values[2:] += 0.7
        comparison = effects(factors, cells, values, "loss", RULES)[1].comparison
        assert comparison is not None
        assert comparison.half_width is not None
        held += abs(comparison.mean - 0.7) <= comparison.half_width
    assert held / 1000 == pytest.approx(CONFIDENCE, abs=0.02)


def test_a_plan_knows_the_power_of_main_effects(tmp_path: Path) -> None:
    file = write_study(tmp_path, {"variants": None, "factors": FACTORS, "seeds": [0, 1, 2, 3]})
    plan = forecast(read_study(file), tmp_path, timed=False)
    assert plan.detectable_effects == {}, "the noise is not known"
    deviation = 0.1
    plan = replace(plan, noise=Noise(2**0.5 * deviation, 30, "a simulation"))
    told = plan.detectable_effects
    assert told.keys() == FACTORS.keys()
    assert plan.detectable is not None
    assert max(told.values()) < plan.detectable

    factors = {factor: list(levels) for factor, levels in FACTORS.items()}
    cells = [arm.levels for arm in plan.study.arms.values()]
    rules, numbers = plan.study.comparison, np.random.default_rng(3)
    count = sum(len(levels) - 1 for levels in factors.values())
    for factor, effect in told.items():
        last = factors[factor][-1]
        raised = np.array([[effect * (cell[factor] == last)] for cell in cells])
        found = 0
        for _ in range(1000):
            values = raised + numbers.normal(size=(len(cells), 4)) * deviation + numbers.normal(size=4)
            compared = {(each.factor, each.level): each.comparison for each in effects(factors, cells, values, "loss", rules)}
            own = compared[factor, last]
            assert own is not None
            assert own.p is not None
            found += own.p <= rules.error_rate / count  # the strictest step of Holm's correction
        assert found / 1000 == pytest.approx(rules.power, abs=0.05)


def test_a_study_of_factors_runs_every_combination(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    patch = {"variants": None, "factors": FACTORS, "seeds": [0, 1, 2], "training": {"steps": 1}}
    trials = run(tmp_path, patch)
    assert {trial.status for trial in trials} == {"done"}
    assert {tuple(trial.levels.items()) for trial in trials} == {
        (("width", width), ("rate", rate)) for width in FACTORS["width"] for rate in FACTORS["rate"]
    }
    assert trials[0].name == "width=narrow-rate=high-seed0"
    found = factor_results(tmp_path / "study")
    assert [each.measure for each in found] == ["loss", "accuracy", "exact_match"]
    assert found[0].seeds == (0, 1, 2)
    assert [(each.factor, each.level) for each in found[0].effects] == [
        (factor, level) for factor, levels in FACTORS.items() for level in levels
    ]
    command = CommandLine(monkeypatch, capsys)
    said = " ".join(command("study", "status", tmp_path / "study").out.split())
    assert "rate=lowest: " in said
    assert "width=wide by rate=low: " in said
    rows = document(command("study", "status", tmp_path / "study", "--json"))["factors"]
    assert rows[0]["effects"][1]["comparison"]["finding"]


def test_a_measure_that_a_combination_lacks_has_no_effects_and_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    rates = {level: FACTORS["rate"][level] for level in ("high", "lowest")}
    patch: dict[str, Any] = {"variants": None, "factors": {"rate": rates}, "training": {"steps": 4, "evaluate_every": 1}}
    patch |= {"measures": [{"name": "time_to_loss"}], "comparison": {"measures": ["loss", "time_to_loss.steps"]}}
    run(tmp_path, patch)
    said = CommandLine(monkeypatch, capsys)("study", "status", tmp_path / "study").out
    reason = "No effects on time to loss steps: it is not known for rate=lowest."
    assert reason in said
    page = render(read_report(tmp_path / "study"))
    assert reason in page
    assert "reaches the first variant&#39;s final loss with 0 of 2 seeds" in page


def test_a_fractional_design_says_what_it_cannot_tell_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    fields = {"a": "batch", "b": "log_every", "c": "steps"}
    factors = {name: {"0": {}, "1": {"training": {field: 2}}} for name, field in fields.items()}
    file = write_study(tmp_path, {"variants": None, "factors": factors, "design": {"name": "fractional", "resolution": 3}})
    command = CommandLine(monkeypatch, capsys)
    found = document(command("study", "plan", file, "--no-time", "--json"))
    assert len(found["variants"]) == 4
    assert found["aliases"] == [["a", "b by c"], ["b", "a by c"], ["c", "a by b"]]
    assert "Aliased: a, b by c." in command("study", "plan", file, "--no-time").out


def planned(file: Path) -> list[Trial]:
    study = read_study(file)
    return plan_trials(study, file.parent, gather(study, file.parent))


@pytest.mark.parametrize(
    ("patch", "said"),
    [
        ({"factors": {"a": {"0": {}}}}, "factors.a"),
        ({"grid": {"training.steps": [1, 2]}}, "grid"),
        ({"variants": {"x": {}, "y": {}}}, "variants: found variants and factors together"),
        ({"design": {"name": "fractional", "resolution": 4}}, "factors.rate: found 3 levels, expected two"),
        (
            {"design": {"name": "chosen", "combinations": [{"width": "wide"}, {"width": "narrow"}]}},
            "one of each factor: rate, width",
        ),
        (
            {
                "design": {
                    "name": "chosen",
                    "combinations": [{"width": "wide", "rate": "fast"}, {"width": "wide", "rate": "low"}],
                }
            },
            r"design.combinations\[0\].rate: found .fast., expected a level of this factor: high, low, lowest",
        ),
        ({"factors": {"a b": {"0": {}, "1": {}}}}, "factors"),
        ({"factors": {str(n): {str(level): {} for level in range(10)} for n in range(40)}}, "budget.trials: found 1"),
        ({"factors": None, "design": {"name": "fractional", "resolution": 3}}, "design: found no factors"),
        (
            {"factors": {"width": {"odd": {"decoder": {"dept": 3}}}}},
            "combination 'width=odd rate=high' and 2 others: decoder.dept",
        ),
        (
            {"factors": {"hidden": {"16": {}, "24": {"decoder": {"layer": {"branches": {"feed_forward": {"hidden": 24}}}}}}}},
            "factors.hidden.24: found decoder.layer.branches.feed_forward.hidden, which factors.width.wide sets to another ",
        ),
        (
            {"factors": {"stack": {"own": {}, "other": {"decoder": {"extends": "t5gemma-s-s"}}}}},
            "factors.stack.other: found decoder, which factors.width.wide sets to another value",
        ),
    ],
)
def test_what_cannot_be_run_is_refused_by_its_path(tmp_path: Path, patch: dict[str, Any], said: str) -> None:
    file = write_study(tmp_path, merge_patch({"variants": None, "factors": FACTORS}, patch))
    with pytest.raises(SpecError, match=said):
        planned(file)


DIFFER: dict[str, tuple[Any, Any, bool]] = {
    "numbers": ({"kv_heads": 1}, {"kv_heads": 2}, True),
    "equal numbers": ({"kv_heads": 1}, {"kv_heads": 1.0}, False),
    "null and an object": (None, {"kv_heads": 1}, True),
    "an object and null": ({"kv_heads": 1}, None, True),
    "two nulls": (None, None, False),
    "other fields": ({"kv_heads": 1}, {"softcap": 2.0}, False),
    "lists": ({"order": [1, 2]}, {"order": [1, 3]}, True),
}


@pytest.mark.parametrize("case", DIFFER)
def test_levels_that_set_a_field_to_different_values_are_not_combined(tmp_path: Path, case: str) -> None:
    one, other, refused = DIFFER[case]
    file = tmp_path / "study.json"
    levels = [{"decoder": {"layer": {"branches": {"cross_attention": value}}}} for value in (one, other)]
    factors = {name: {"base": {}, "changed": level} for name, level in zip("ab", levels, strict=True)}
    document = STUDY | {"factors": factors}
    del document["variants"]
    apart = [{"a": "base", "b": "base"}, {"a": "changed", "b": "base"}, {"a": "base", "b": "changed"}]
    file.write_text(json.dumps(document))
    said = "factors.b.changed: found decoder.layer.branches.cross_attention.*factors.a.changed.*Leave this combination out"
    with pytest.raises(SpecError, match=said) if refused else contextlib.nullcontext():
        read_study(file)
    file.write_text(json.dumps(document | {"design": {"name": "chosen", "combinations": apart}}))
    assert list(read_study(file).arms) == ["a=base b=base", "a=changed b=base", "a=base b=changed"]
