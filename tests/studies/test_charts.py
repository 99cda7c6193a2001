"""Data of charts: the look of each variant, thinning, and the tables of numbers."""

import itertools
from pathlib import Path
from typing import Any

import pytest

from pairform.experiments.execution.run import prepare
from pairform.experiments.report.charts import POINTS, Axis, Chart, Series, embedded
from pairform.experiments.report.looks import Look, looks
from pairform.experiments.report.reading import Report, read_report
from pairform.experiments.study.contents import gather
from pairform.experiments.study.planning import plan_trials, read_study
from tests.studies.small_study import write_results, write_study

HIDDEN = {str(size): {"decoder": {"layer": {"branches": {"feed_forward": {"hidden": size}}}}} for size in (8, 4, 12)}
RATE: dict[str, Any] = {"high": {}, "low": {"training": {"optimizer": {"learning_rate": 0.0003}}}}
NORM: dict[str, Any] = {"sandwich": {}, "pre": {"decoder": {"layer": {"placement": "pre"}}}}


def planned(folder: Path, patch: dict[str, Any]) -> Report:
    """The report of a study of which nothing was run."""
    study, out = read_study(write_study(folder, patch)), folder / "study"
    trials = plan_trials(study, folder, gather(study, folder))
    out.mkdir()
    prepare(out, study, trials, retry=False)
    return read_report(out)


def test_factors_have_colours_and_shapes_by_level(tmp_path: Path) -> None:
    factors = {"norm": NORM, "hidden": HIDDEN, "rate": RATE}
    found, words = looks(planned(tmp_path, {"variants": None, "factors": factors, "seeds": [0]}))
    assert words == "Colour: norm. Shape: hidden, rate."
    levels = {name: dict(part.split("=") for part in name.split()) for name in found}
    assert all((look.colour == 0) == (levels[name]["norm"] == "sandwich") for name, look in found.items())
    for one, other in itertools.combinations(found, 2):
        same = all(levels[one][factor] == levels[other][factor] for factor in ("hidden", "rate"))
        assert same == (found[one].shape == found[other].shape)


def test_variants_of_a_grid_have_colours_and_its_points_shapes(tmp_path: Path) -> None:
    found, words = looks(planned(tmp_path, {"grid": {"training.batch": [2, 4]}, "seeds": [0]}))
    assert words == "Colour: variant. Shape: training.batch."
    assert found == {
        "separate batch=2": Look(0, 0),
        "separate batch=4": Look(0, 1),
        "merged batch=2": Look(1, 0),
        "merged batch=4": Look(1, 1),
    }


def test_up_to_64_variants_and_other_lines_look_different(tmp_path: Path) -> None:
    report = read_report(write_results(tmp_path, {f"v{place}": ["planned"] for place in range(60)}))
    found, words = looks(report, ["a fit", "v3"])
    assert len(found) == len(set(found.values())) == 61
    assert words == ""


def chart(series: list[Series]) -> Chart:
    return Chart("loss", "Loss", "lines", Axis("step"), Axis("loss"), series)


def test_charts_of_many_points_keep_the_first_and_the_last_and_say_so() -> None:
    steps = list(range(1, 1002))
    values = [float(step) for step in steps]
    few = chart([Series("a", steps, values, values, values, {"seed 0": (steps, values)})])
    assert few.thinned() is few
    many = chart([Series(f"{place}", steps, values, values, values, {"seed 0": (steps, values)}) for place in range(100)])
    thinned = many.thinned()
    assert thinned.caption == "One of 11 points of each line is drawn."
    drawn = thinned.series[0]
    assert (drawn.x[0], drawn.x[1], drawn.x[-1]) == (1, 12, 1001)
    assert len(drawn.x) == len(drawn.low) == len(drawn.high) == len(drawn.seeds["seed 0"][0])
    assert sum(2 * len(series.x) for series in thinned.series) <= POINTS


def test_a_chart_has_its_numbers_in_a_table() -> None:
    lines = chart([Series("a", [1, 5, 10], [3.0, 2.0, 1.0]), Series("b", [1, 10], [4.0, 0.5])]).table()
    assert list(lines.head) == ["Variant", "step 1", "step 5", "step 10"]
    assert [[cell.text for cell in row] for row in lines.rows] == [["a", "3", "2", "1"], ["b", "4", "", "0.5"]]
    series = [Series("a", [1e6], [2.0], [1.5], [2.5]), Series("b", [2e6], [3.0], hollow=True, note="1 of 3 seeds")]
    points = Chart("cost", "Cost", "points", Axis("parameters"), Axis("loss"), series, front=["a"]).table()
    assert [[cell.text for cell in row] for row in points.rows] == [
        ["a", "1,000,000", "2", "1.5 to 2.5", "on the front"],
        ["b", "2,000,000", "3", "", "1 of 3 seeds"],
    ]


def test_what_the_page_draws_has_no_controls_and_no_marks_of_direction() -> None:
    name = "\u202eodd\x1b[2J"
    found = embedded([chart([Series(name, [1], [2.0], note=name)])], {name: Look(1, 2)})
    assert found["looks"] == {"\\u202eodd\\x1b[2J": [1, 2]}
    (series,) = found["charts"]["loss"]["series"]
    assert series["name"] == series["note"] == "\\u202eodd\\x1b[2J"


@pytest.mark.parametrize(("value", "kept"), [(3, 3), (1234567, 1234567), (0.123456789, 0.123457), (1e-12, 1e-12)])
def test_numbers_have_six_digits_and_whole_ones_all(value: float, kept: float) -> None:
    (series,) = embedded([chart([Series("a", [value], [value])])], {"a": Look(0, 0)})["charts"]["loss"]["series"]
    assert series["x"] == series["y"] == [kept]
