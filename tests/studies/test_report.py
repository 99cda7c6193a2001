"""The report of a study that was run here: two variants, and one that diverges."""

import base64
import hashlib
import platform
import re
import shutil
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure as FigureCanvas

from pairform.experiments.report import report
from pairform.experiments.report.charts import Series
from pairform.experiments.report.curves import line
from pairform.experiments.report.fronts import pareto_front
from pairform.experiments.report.looks import Look
from pairform.experiments.report.reading import read_curves
from pairform.experiments.report.static import draw_line, draw_point
from pairform.experiments.results.records import result_of, trials_of
from pairform.registry import InputError, OutputError
from tests.command_line.runner import CommandLine
from tests.studies.small_study import MERGED, run

DIVERGES = {"training": {"optimizer": {"name": "sgd", "learning_rate": 1e30}, "steps": 6}}
MATCH = {"by": "parameters", "multiple": 1, "tolerance": 0.1}
NAME = "merged <b>&amp;"
"""A name that would be markup if it were not escaped."""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    variants = {"merged": None, NAME: MERGED, "diverges": DIVERGES}
    run(folder, {"variants": variants, "latency": True, "match": MATCH, "seeds": [0, 1, 2]}, jobs=2)
    return folder / "study"


@pytest.fixture(scope="module")
def page(study: Path) -> str:
    return report(study).read_text("utf-8")


class Reader(HTMLParser):
    """What stands in a page: ids, links, the cells of each table, and whether each element is closed where it must be."""

    VOID = ("meta", "link", "br", "path", "use")
    SCRIPT = re.compile(r"<script[^>]*>.*?</script>", re.DOTALL)

    def __init__(self, page: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(self.SCRIPT.sub("", page))
        self.close()

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.handle_endtag(tag)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "src", "xlink:href", "aria-labelledby") or "url(#" in (value or ""):
                self.links.append(value or "")
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data


def test_the_table_holds_what_the_trials_measured(page: str, study: Path) -> None:
    results = Reader(page).tables[0]
    head, rows = results[0], {row[0][1:]: dict(zip(results[0], row, strict=True)) for row in results[1:]}
    assert head[:4] == ["Variant", "Loss", "Loss against the first", "Trials"]
    assert list(rows) == ["separate", NAME, "diverges"]
    losses = {
        variant: [result_of(study, trial.name)["loss"] for trial in trials_of(study) if trial.variant == variant]
        for variant in ("separate", NAME)
    }
    for name, values in losses.items():
        half = 4.30265273 * stdev(values) / 3**0.5  # Student's t for two degrees of freedom, as tables print it
        assert rows[name]["Loss"] == f"{fmean(values):.4f} ± {half:.4f}"
    changes = [new - old for old, new in zip(losses["separate"], losses[NAME], strict=True)]
    assert rows[NAME]["Loss against the first"].startswith(f"{fmean(changes):+.4f} ±")
    assert rows["separate"]["Loss against the first"] == ""
    assert rows["diverges"]["Loss"] == ""
    assert rows["diverges"]["Trials"] == "3 failed"


def test_the_page_shows_differences_failures_and_how_to_run_again(page: str) -> None:
    read = Reader(page)
    cells = [row for table in read.tables for row in table]
    assert ["decoder.layer.branches.self_attention.name", '"self_attention"', '"merged_attention"'] in cells
    assert ["training.steps", "3", "6"] in cells
    assert "diverges-seed0" in read.text
    assert f"{NAME} against the base" in read.text
    assert "diverges against the base" not in read.text  # it is the base, trained otherwise
    size = r"the size of the first variant: [\d,]+ parameters against [\d,]+, a difference of [+-]\d\.\d\d%, "
    assert re.search(size + r"within the study's tolerance of 10\.00%\.", read.text)
    assert "the loss is" in read.text
    assert "3 variants, 3 seeds: 6 of 9 trials done" in read.text
    assert read.text.count("On the front: ") == 3  # parameters, FLOPs, latency
    assert ["versions: python", platform.python_version()] in cells


def test_the_page_is_one_whole_file(page: str) -> None:
    """It asks for nothing outside, its elements nest, each id is there once, each link inside it leads somewhere."""
    read = Reader(page)
    assert read.open == []
    assert len(read.ids) == len(set(read.ids))
    inner = [match for link in read.links for match in re.findall(r"#([\w-]+)", link) or ([] if ":" in link else [link])]
    assert set(inner) <= set(read.ids)
    assert {link for link in read.links if "#" not in link and link not in read.ids} == {"data:,"}
    text = Reader.SCRIPT.sub("", page)
    assert "<b>" not in text
    assert not re.search(r"#0000\d\d|#0001\d\d", text)  # every colour is the page's
    assert not re.search(r"@import|url\((?!#)", text)


def test_equal_folders_give_equal_pages(page: str, study: Path, tmp_path: Path) -> None:
    shutil.copytree(study, tmp_path / "other")
    assert report(tmp_path / "other").read_text("utf-8") == page


def test_the_command_prints_where_the_page_is(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = CommandLine(monkeypatch, capsys)("study", "report", study)
    assert (ran.code, ran.out) == (0, f"{study / 'report.html'}\n")


def test_a_folder_without_a_study_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"no study\.json"):
        report(tmp_path)


def test_a_line_of_metrics_that_was_cut_off_is_left_out_and_told(page: str, study: Path, tmp_path: Path) -> None:
    shutil.copytree(study, tmp_path / "cut")
    with (tmp_path / "cut" / "trials" / "separate-seed1" / "metrics.jsonl").open("ab") as file:
        file.write(b'[1]\n{"step": 4, "split": "tr\xc3')
    read = report(tmp_path / "cut").read_text("utf-8")
    told = "2 lines of the metrics of separate-seed1 could not be read"
    assert told in read
    assert told not in page
    assert re.findall("<svg.*?</svg>", read, re.DOTALL) == re.findall("<svg.*?</svg>", page, re.DOTALL)


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_a_package_that_is_missing_is_named(study: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf"`{package}` is not installed.*pairform\[study\]"):
        report(study)


def canvas(draw: Callable[[Any], None]) -> Any:
    """Axes that were drawn on."""
    axes: Any = FigureCanvas(figsize=(4, 3)).subplots()
    draw(axes)
    return axes


LOOK = Look(0, 0)


def test_a_band_reaches_from_the_lowest_seed_to_the_highest() -> None:
    losses = {0: (3.0, 2.0), 1: (5.0, 2.5), 2: (4.0, 0.9)}
    lines = {
        seed: [{"split": "valid", "step": step, "loss": loss} for step, loss in enumerate(values, 1)]
        for seed, values in losses.items()
    }
    series = line("a", read_curves(lines)["valid", "loss"])
    axes = canvas(lambda axes: draw_line(axes, series, LOOK, True))
    (drawn,) = axes.lines
    assert drawn.get_xydata() == pytest.approx(np.array([[1.0, 4.0], [2.0, (2.0 + 2.5 + 0.9) / 3]]))
    (band,) = axes.collections
    corners = {(x, y) for x, y in band.get_paths()[0].vertices.round(9).tolist()}
    assert corners == {(1.0, 3.0), (1.0, 5.0), (2.0, 0.9), (2.0, 2.5)}
    assert not canvas(lambda axes: draw_line(axes, series, LOOK, False)).collections
    assert series.seeds["seed 2"] == ([1, 2], [4.0, 0.9])


def test_an_error_bar_is_the_interval_of_the_loss() -> None:
    axes = canvas(lambda axes: draw_point(axes, Series("a", [7.0], [2.0], [1.75], [2.25]), LOOK, False))
    (bar,) = [segment.tolist() for collection in axes.collections for segment in collection.get_segments()]
    assert bar == [[7.0, 1.75], [7.0, 2.25]]
    assert not canvas(lambda axes: draw_point(axes, Series("a", [7.0], [2.0]), LOOK, False)).collections


def test_a_ring_is_on_the_front_and_a_hollow_point_is_not_compared() -> None:
    for on_front, hollow in ((True, False), (False, False), (False, True)):
        series = Series("a", [7.0], [2.0], hollow=hollow)
        axes = canvas(lambda axes: draw_point(axes, series, LOOK, on_front))  # noqa: B023
        assert len(axes.lines) == 1 + on_front
        assert (axes.lines[-1].get_markerfacecolor() == "none") == hollow


def test_the_front_is_what_nothing_betters() -> None:
    points = {"cheap": (1.0, 9.0), "dear": (9.0, 1.0), "between": (5.0, 5.0), "same": (5.0, 5.0), "worse": (6.0, 5.0)}
    assert pareto_front(points) == ["cheap", "between", "same", "dear"]
    assert pareto_front({"one": (0.0, 0.0)} | points) == ["one"]


def test_the_page_allows_its_own_script_and_style_sheets_only(page: str) -> None:
    found = re.search(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', page)
    assert found is not None
    policy = {name: values for name, *values in (part.split() for part in found[1].split(";"))}
    assert policy["default-src"] == ["'none'"]
    for element, directive in {"script": "script-src", "style": "style-src-elem"}.items():
        own = re.findall(rf"<{element}>(.*?)</{element}>", page, re.DOTALL)
        hashes = {f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in own}
        assert hashes == set(policy[directive])
