"""A report that follows a study."""

import contextlib
import re
import signal
from pathlib import Path

import pytest

from pairform.experiments.report.watching import watch
from pairform.experiments.results.records import TrialFolder
from pairform.registry.run_folders import lock, write_json
from tests.command_line.runner import CommandLine
from tests.studies.small_study import write_results

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")


def test_a_page_is_written_again_for_each_change_until_all_trials_have_ended(tmp_path: Path) -> None:
    folder = write_results(tmp_path, {"first": [1.0, 2.0, "planned"]})
    pages: list[str] = []
    run = contextlib.ExitStack()
    run.enter_context(lock(folder / ".lock", wait=False))  # it may add trials

    def written(page: Path) -> None:
        pages.append(page.read_text("utf-8"))
        trial = TrialFolder(folder, "first-seed2")
        if len(pages) == 1:
            trial.write(trial.read().at("failed"))
        elif len(pages) == 2:
            write_json(trial.path / "result.json", {"loss": 3.0})
            trial.write(trial.read().at("done"))
        else:
            run.close()

    watch(folder, written, seconds=0.01)
    assert [re.findall(r"\d of 3 trials done|\d failed", page)[:2] for page in pages] == [
        ["2 of 3 trials done"],
        ["2 of 3 trials done", "1 failed"],
        ["3 of 3 trials done"],
    ]
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "report.html", "study.json", "trials"]


def test_ctrl_c_ends_the_watch_and_leaves_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_results(tmp_path, {"first": [1.0, "planned"]})
    monkeypatch.setattr("time.sleep", lambda seconds: signal.raise_signal(signal.SIGINT))
    given = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may start the tests with it ignored
    try:
        ended = CommandLine(monkeypatch, capsys)("study", "report", folder, "--watch")
    finally:
        signal.signal(signal.SIGINT, given)
    assert (ended.code, ended.out) == (130, f"{folder / 'report.html'}\n")
    assert ended.err == "stopped; the last report remains\n"
    assert (folder / "report.html").is_file()
