"""The command line: publishing, cards, and hub ids in the place of folders."""

import os
from pathlib import Path
from shutil import copytree

import pytest

from tests.command_line.runner import CommandLine, document, refused
from tests.hub.server import READER, Hub


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(monkeypatch, capsys)


def test_push_and_use(run: CommandLine, hub: Hub, pair: Path, tmp_path: Path) -> None:
    listed = run("push", pair, "lab/pair", "--dry-run").out
    assert "not sent" in listed
    assert f"{(pair / 'spec.json').stat().st_size:,} bytes" in listed
    assert not hub.repositories
    done = document(run("push", pair, "lab/pair@trial", "--private", "--message", "First", "--json"))
    assert done["commit"] == hub.repositories["lab/pair"].branches["trial"]
    assert hub.repositories["lab/pair"].private
    assert hub.repositories["lab/pair"].messages[-1] == "First"
    assert "README.md" in run("push", pair, "lab/pair@trial").out
    refused(run("push", pair, "lab/pair", "--public"), 1, "a private repository")
    assert "ok" in run("verify", "lab/pair@trial").out
    assert document(run("inspect", "lab/pair@trial", "--json")) == document(run("inspect", pair, "--json"))
    assert run("diff", "lab/pair@trial", pair, "--json").out == "{}\n"
    assert run("generate", "lab/pair@trial", "--text", "the fox").code == 0
    assert run("export", "lab/pair@trial", "--out", tmp_path / "export").code == 0
    convert = ("convert", "--encoder", "lab/pair@trial", "--decoder", "lab/pair", "--decoder-revision", "trial")
    assert run(*convert, "--out", tmp_path / "again").code == 0
    refused(run("inspect", "lab/pair@none"), 1, "no revision 'none'")


def test_card(run: CommandLine, pair: Path, tmp_path: Path) -> None:
    printed = run("card", pair, "--repository", "lab/pair", "--license", "mit").out
    assert "license: mit" in printed
    assert 'pairform.load("lab/pair")' in printed
    out = tmp_path / "card.md"
    assert run("card", pair, "--repository", "lab/pair", "--license", "mit", "--out", out).code == 0
    assert out.read_text() == printed
    refused(run("card", pair, "--out", out), 1, "a file that exists", "--overwrite")
    assert run("card", pair, "--out", out, "--overwrite").code == 0
    assert "license: gemma" in out.read_text()


def test_wrong_usage(run: CommandLine, hub: Hub, pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(run("push", pair, "lab/pair", "--card", "none"), 2, "--card", "keep or replace")
    refused(run("push", "", "lab/pair"), 2, "an empty path")
    refused(run("push", pair, "pair"), 1, "hub id")
    refused(run("push", tmp_path, "lab/pair"), 1, "config.json")
    folder = copytree(pair, tmp_path / "pipe")
    os.mkfifo(folder / "LICENSE")
    refused(run("push", folder, "lab/pair"), 1, "LICENSE", "regular file")
    assert not hub.requests
    monkeypatch.setenv("HF_TOKEN", READER)
    refused(run("push", pair, "lab/pair"), 1, "lab/pair", "token")
