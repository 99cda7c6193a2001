"""What a study's numbers say: means and differences over seeds, and what is said of seeds that are not done."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pairform.experiments.report.page import render
from pairform.experiments.report.reading import read_report
from pairform.experiments.results.summary import (
    caution,
    comparisons,
    differences,
    family_wise,
    interval,
    means,
    summarise,
    t_quantile,
)
from tests.command_line.runner import CommandLine, document
from tests.studies.small_study import write_results

LUCKY: dict[str, list[float | str | None]] = {
    "first": [3.0, 4.0, 5.0],
    "steady": [1.0, 2.0, 3.0],
    "lucky": [None, 0.5, None],
    "worse": [None, 9.0, 9.5],
    "half": [0.1, "planned", "planned"],
    "never": [None, None, None],
}
"""The second seed of `lucky` has the lowest loss of all that have ended, and the first of `half` a lower one yet."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_results(tmp_path, LUCKY)


def test_variants_with_failed_seeds_are_ranked_behind_and_unfinished_ones_not_at_all(folder: Path) -> None:
    rows = {row["variant"]: row for row in summarise(folder)}
    ranks = {name: row["rank"] for name, row in rows.items()}
    assert ranks == {"steady": 1, "first": 2, "worse": 3, "lucky": 4, "never": 5, "half": None}
    assert {name: row["results"].get("loss", {}).get("seeds") for name, row in rows.items()} == {
        "first": 3,
        "steady": 3,
        "lucky": 1,
        "worse": 2,
        "half": 1,
        "never": None,
    }


def test_a_difference_is_over_the_seeds_that_both_have(folder: Path) -> None:
    rows = {row["variant"]: row for row in summarise(folder)}
    assert rows["lucky"]["difference"]["loss"] == {"mean": 0.5 - 4.0, "half_width": None, "seeds": 1}
    worse = rows["worse"]["difference"]["loss"]
    assert (worse["mean"], worse["seeds"]) == (((9.0 - 4.0) + (9.5 - 5.0)) / 2, 2)
    assert rows["steady"]["difference"]["loss"] == {"mean": -2.0, "half_width": 0.0, "seeds": 3}


def test_status_says_of_how_many_seeds_a_mean_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = CommandLine(monkeypatch, capsys)
    lines = {line.split()[0]: line for line in command("study", "status", folder).out.splitlines()}
    assert "2 failed, 1 done  0.5000 (1 of 3 seeds)  -3.5000 (1 of 3 seeds)" in re.sub(" {2,}", "  ", lines["lucky"])
    assert "seeds" not in lines["steady"]
    assert document(command("study", "status", folder, "--json"))["variants"][2]["rank"] == 4


def test_the_front_is_of_variants_whose_seeds_are_all_done(folder: Path) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    page = render(read_report(folder))
    assert set(re.findall(r"On the front: ([^.]*)\.", page)) == {"steady"}
    left_out = "lucky (1 of 3 seeds), worse (2 of 3 seeds), half (1 of 3 seeds)"
    assert f"not compared, because some seeds failed or are unfinished: {left_out}." in page
    row = page[page.index('data-value="lucky"') :].partition("</tr>")[0]
    assert '<td data-value="">0.5000 (1 of 3 seeds)</td>' in row
    assert '<td data-value="4">4</td>' in row


def test_the_chance_that_some_interval_excludes_zero_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    said = "among 3 comparisons, at least one 95% interval excludes zero in up to 14% of studies"
    folder = write_results(tmp_path / "four", {name: [1.0, 2.5, place / 2] for place, name in enumerate("abcd")})
    assert said in CommandLine(monkeypatch, capsys)("study", "status", folder).out
    assert said in render(read_report(folder))
    two = write_results(tmp_path / "two", {"a": [1.0, 2.0], "b": [1.5, 2.0]})
    assert caution(summarise(two)) == ""
    one_seed = write_results(tmp_path / "one", {"a": [1.0], "b": [1.5], "c": [1.2]})
    assert caution(summarise(one_seed)) == "", "no interval at all"


def test_intervals_are_students() -> None:
    printed = {1: 12.706, 2: 4.303, 4: 2.776, 10: 2.228, 30: 2.042}
    assert {freedom: round(t_quantile(0.975, freedom), 3) for freedom in printed} == printed
    mean, half = interval([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert half == pytest.approx(4.303 / 3**0.5, rel=1e-3)
    assert interval([5.0]) == (5.0, None)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_an_interval_holds_the_mean_as_often_as_it_says(seeds: int) -> None:
    """Simulated: 95 % of 4,000 intervals, give or take three standard errors."""
    numbers = np.random.default_rng(seeds).normal(7.0, 2.0, (4000, seeds)).tolist()
    held = [abs(mean - 7.0) <= half for mean, half in map(interval, numbers) if half is not None]
    assert sum(held) / 4000 == pytest.approx(0.95, abs=3 * (0.95 * 0.05 / 4000) ** 0.5)


@pytest.mark.parametrize(("variants", "rate"), [(3, 0.14), (7, 0.28), (15, 0.46)])
def test_how_often_some_interval_excludes_zero_where_no_variant_differs(variants: int, rate: float) -> None:
    """Simulated: studies of three seeds, in which so many variants are compared with a first one that equals them."""
    numbers = np.random.default_rng(variants)
    found = 0
    for _ in range(600):
        common = 3.0 * numbers.normal(size=3)  # what a seed does to every variant drops out
        losses = (common + numbers.normal(size=(variants + 1, 3))).tolist()
        results = [{seed: {"loss": loss} for seed, loss in enumerate(row)} for row in losses]
        rows: list[dict[str, Any]] = [{"difference": means(differences(own, results[0]))} for own in results[1:]]
        assert comparisons(rows) == variants
        apart = [row["difference"]["loss"] for row in rows]
        found += any(abs(each["mean"]) > each["half_width"] for each in apart)
    error = (rate * (1 - rate) / 600) ** 0.5
    assert found / 600 == pytest.approx(rate, abs=3 * error)
    assert found / 600 < family_wise(variants) + 2 * error
