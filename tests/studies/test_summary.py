"""What a study's numbers say: means and differences over seeds, and what is said of seeds that are not done."""

import re
from pathlib import Path
from typing import Any

import pytest

from pairform.experiments.report.page import render
from pairform.experiments.report.reading import read_report
from pairform.experiments.results.summary import summarise
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
    found = {name: row["difference"]["loss"] for name, row in rows.items() if "difference" in row}
    assert {name: (each["mean"], each["half_width"], each["seeds"]) for name, each in found.items()} == {
        "steady": (-2.0, 0.0, 3),
        "lucky": (0.5 - 4.0, None, 1),
        "worse": (((9.0 - 4.0) + (9.5 - 5.0)) / 2, None, 2),
        "half": (0.1 - 3.0, None, 1),
    }


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


def test_each_variant_has_a_sentence_that_says_what_was_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    losses: dict[str, list[float | str | None]] = {
        "first": [3.0, 4.0, 5.0, 6.0],
        "better": [2.01, 3.0, 3.99, 5.0],
        "noisy": [1.0, 6.0, 5.0, 5.5],
        "unfinished": [3.0, 4.0, "planned", "planned"],
    }
    folder = write_results(tmp_path, losses)
    command = CommandLine(monkeypatch, capsys)
    said = command("study", "status", folder).out
    page = render(read_report(folder))
    rows = {row["variant"]: row for row in document(command("study", "status", folder, "--json"))["variants"]}
    assert "difference" not in rows["first"]
    verdicts = {"better": "lower", "noisy": "not_found", "unfinished": "few_seeds"}
    for name, verdict in verdicts.items():
        found = rows[name]["difference"]["loss"]
        assert found["verdict"] == verdict
        assert f"{name}: {found['finding']}" in said.splitlines()
        assert f">{name}</a></strong>: {found['finding']}" in page
    assert "p = " in rows["better"]["difference"]["loss"]["finding"]
    assert "Holm" in page[page.index('id="findings"') :].partition("</p>")[0]


def test_the_rules_of_comparison_may_change_after_a_run(tmp_path: Path) -> None:
    differing = {"first": [3.0, 4.0, 5.0], "second": [3.02, 4.01, 4.98]}
    patches: list[dict[str, Any]] = [{}, {"comparison": {"margins": {"loss": 0.2}}}]
    plain, with_margin = (write_results(tmp_path / str(n), differing, patch) for n, patch in enumerate(patches))
    assert [summarise(folder)[1]["difference"]["loss"]["verdict"] for folder in (plain, with_margin)] == [
        "not_found",
        "equivalent",
    ]
