"""The folder of a study that came from somebody else, as status and report read it: every file in it may hold anything."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pairform.experiments.report import report
from pairform.experiments.results.summary import summarise
from pairform.registry import PairformError
from tests.studies.small_study import MERGED, run

NAME = "odd \x1b[2J\x00\x08 \u202e $\\frac{$ <script>"
TRIAL = "trials/separate-seed0"
METRICS = '{"split": "train", "step": 1, "loss": %s}\n{"split": "train", "step": %s, "loss": 1}\n'


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("done")
    run(folder, {"training": {"steps": 2}, "variants": {"merged": None, NAME: MERGED}})
    return folder / "study"


@pytest.fixture
def study(done: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(done, tmp_path / "study"))


def change(file: Path, **fields: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def test_a_page_holds_no_control_and_no_mark_of_direction(study: Path) -> None:
    page = report(study).read_text("utf-8")
    assert "odd \\x1b[2J\\x00\\x08 \\u202e $\\frac{$ &lt;script&gt;" in page
    assert not [char for char in page if (ord(char) < 32 and char not in "\n\t") or char == "\u202e"]


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan"), 1e308, 10**400, 10**4000, "1", True])
def test_a_result_that_is_no_number_to_count_with_is_refused(value: object, study: Path) -> None:
    change(study / TRIAL / "result.json", loss=value)
    for call in (summarise, report):
        with pytest.raises(PairformError, match=r"result\.json"):
            call(study)


@pytest.mark.parametrize("lacks", [None, "loss"])
def test_a_loss_that_was_not_measured_is_left_out(lacks: str | None, study: Path) -> None:
    for file in study.glob("trials/*/result.json"):
        result = json.loads(file.read_text())
        file.write_text(json.dumps({**result, "loss": None} if lacks is None else {"accuracy": result["accuracy"]}))
    assert all("loss" not in row["results"] for row in summarise(study))
    assert report(study).is_file()


@pytest.mark.parametrize(("loss", "step"), [("9" * 400, 2), ("1e400", 2), ("NaN", 2), ("true", 2), ("1", "9" * 400), ("1", -1)])
def test_metrics_that_cannot_be_drawn_are_left_out(loss: str, step: object, study: Path) -> None:
    (study / TRIAL / "metrics.jsonl").write_text(METRICS % (loss, step))
    assert report(study).is_file()


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
@pytest.mark.parametrize("name", [f"{TRIAL}/metrics.jsonl", f"{TRIAL}/result.json", f"{TRIAL}/trial.json", "study.json"])
def test_what_is_no_file_is_refused_by_name(name: str, make: Callable[[Path], object], study: Path) -> None:
    (study / name).unlink()
    make(study / name)
    with pytest.raises(PairformError) as caught:
        report(study)
    assert (Path(name).name if name != "study.json" else "study") in str(caught.value)


@pytest.mark.parametrize("name", ["environment.json", f"{TRIAL}/trial.json", f"{TRIAL}/result.json", "study.json"])
def test_half_a_character_is_refused_by_name(name: str, study: Path) -> None:
    change(study / name, error="\ud800")
    with pytest.raises(PairformError, match=f"{Path(name).name}: error: found '.ud800', which holds half a character"):
        report(study)


def test_a_folder_in_the_place_of_the_report_is_named(study: Path) -> None:
    (study / "report.html").mkdir()
    with pytest.raises(PairformError, match=r"report\.html: found Is a directory"):
        report(study)
