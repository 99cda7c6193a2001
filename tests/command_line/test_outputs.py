"""Where commands write: never by accident, and with nothing shown before the first byte."""

import os
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import pairform
from tests.command_line.runner import CommandLine, refused
from tests.studies.small_study import write_study


def tree(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_ino for path in folder.rglob("*")}


@pytest.mark.parametrize("out", ["", ".", "..", "/"])
@pytest.mark.parametrize("command", ["convert", "export", "extract", "carry"])
def test_the_working_directory_is_never_replaced(
    run: CommandLine,
    sources: tuple[Path, Path],
    pair: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    out: str,
) -> None:
    """`--out ""` is what an unset variable gives. A model stands in the way, which --overwrite would replace."""
    here = tmp_path / "models" / "here"
    pairform.export(pair, here, format="pairform")
    monkeypatch.chdir(here)
    given = ["--encoder", sources[0], "--decoder", sources[1]] if command == "convert" else [pair]
    before = tree(tmp_path)
    refused(run(command, *given, "--out", out, "--overwrite"), 1, "error: ")
    assert tree(tmp_path) == before
    assert Path.cwd() == here


@pytest.mark.parametrize("out", ["", "."])
def test_a_file_needs_a_path(run: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str) -> None:
    monkeypatch.chdir(tmp_path)
    refused(run("schema", "--out", out), 1, "an empty path or '.'", "not set")
    assert tree(tmp_path) == {}


def test_save_to_an_empty_path_is_refused(pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    with pytest.raises(pairform.PairformError, match="an empty path"):
        pairform.save(pairform.load(pair), "", overwrite=True)
    assert tree(tmp_path) == {"here": here.stat().st_ino}


def test_a_file_is_written_through_a_link_and_to_a_device(run: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "real.json").write_text("old")
    (tmp_path / "real.json").chmod(0o640)
    (tmp_path / "link.json").symlink_to("real.json")
    assert run("schema", "--out", tmp_path / "link.json").code == 0
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "real.json").read_text().startswith("{")
    assert (tmp_path / "real.json").stat().st_mode & 0o777 == 0o640
    assert run("schema", "--out", os.devnull).code == 0


def test_a_partial_file_is_not_written_through_a_planted_link(run: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    for number in range(os.getpid(), os.getpid() + 10):
        (tmp_path / f".schema.json.partial-{number}").symlink_to(tmp_path / "mine")
    assert run("schema", "--out", tmp_path / "schema.json").code == 0
    assert (tmp_path / "mine").read_text() == "mine"
    assert not (tmp_path / "schema.json").is_symlink()


@pytest.mark.parametrize("words", [("run", ""), ("run", "FILE", "--out", ""), ("status", ""), ("report", "")])
def test_an_empty_path_is_no_study(
    words: tuple[str, ...], run: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_study(tmp_path / "study")
    monkeypatch.chdir(tmp_path)
    refused(run("study", *(file if word == "FILE" else word for word in words)), 2, "an empty path")
    assert [path.name for path in tmp_path.iterdir()] == ["study"]


@pytest.mark.parametrize("command", ["show", "inspect", "verify"])
def test_an_empty_path_is_not_the_current_folder(
    command: str, run: CommandLine, pair: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pair)
    result = run(command, "")
    assert result.code in (1, 2)
    assert "empty" in result.err
    assert Path(os.devnull).is_char_device()


def test_no_progress_is_shown_before_a_refusal(
    run: CommandLine, sources: tuple[Path, Path], pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def terminal(**options: Any) -> Console:
        return Console(force_terminal=True, width=80, **options)

    monkeypatch.setattr("pairform.cli.display.printing.Console", terminal)
    words = ["convert", "--encoder", sources[0], "--decoder", sources[1], "--out"]
    assert "bytes" not in run(*words, pair).err
    assert "kB" in run(*words, tmp_path / "new").err
