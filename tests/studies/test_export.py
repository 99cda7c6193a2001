"""The trials of a study as a table in a file."""

import csv
import math
from pathlib import Path

import pytest

from pairform.experiments.results.export import export
from pairform.registry import InputError, OutputError
from tests.command_line.runner import CommandLine
from tests.studies.small_study import write_results

LOSSES: dict[str, list[float | str | None]] = {
    "plain": [1.0, 2.5],
    '=HYPERLINK("http://x")': [3.0, "planned"],
    'a "quoted", name\nof two lines': [None, 0.5],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_results(tmp_path, LOSSES)


def test_a_csv_has_a_row_for_each_trial_and_no_formula(folder: Path, tmp_path: Path) -> None:
    with export(folder, tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["variant"] for row in rows[:3]] == ["plain", '\'=HYPERLINK("http://x")', 'a "quoted", name\nof two lines']
    by_variant = {(row["variant"].lstrip("'"), row["seed"]): (row["status"], row["loss"]) for row in rows}
    assert by_variant["plain", "1"] == ("done", "2.5")
    assert by_variant['=HYPERLINK("http://x")', "1"] == ("planned", "")
    assert by_variant['a "quoted", name\nof two lines', "0"] == ("failed", "")
    assert len(rows) == 6


def test_parquet_keeps_numbers_and_names(folder: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(export(folder, tmp_path / "out.parquet")).to_pydict()
    assert table["seed"] == [0, 0, 0, 1, 1, 1]
    assert table["loss"] == [1.0, 3.0, None, 2.5, None, 0.5]
    assert table["variant"][:3] == list(LOSSES)
    assert not any(isinstance(loss, float) and math.isnan(loss) for loss in table["loss"])


def test_a_file_is_replaced_only_if_asked(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "out.csv"
    target.write_text("mine")
    with pytest.raises(OutputError, match="--overwrite"):
        export(folder, target)
    assert target.read_text() == "mine"
    with pytest.raises(InputError, match=r"\.csv or \.parquet"):
        export(folder, tmp_path / "out.xlsx")
    result = CommandLine(monkeypatch, capsys)("study", "export", folder, "--out", target, "--overwrite")
    assert (result.code, result.out.strip()) == (0, str(target))
    assert target.read_text().startswith("trial,variant,")
