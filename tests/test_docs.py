"""Whoever follows README.md, CONTRIBUTING.md or a page of docs/ line by line gets what it shows."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.command_line.runner import CommandLine
from tests.demo import made_demo
from tests.pages import blocks, commands, links, missing_line
from tests.reader import ROOT, Reader, clone, told_by_a_shell
from tests.registries import forget_new_blocks

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
NEEDS = {"quantise.md": "torchao", "runtimes.md": "ctranslate2", "transformers.md": "peft"}
"""Pages that are about an optional package."""
LANGUAGES = ("console", "bash", "sh", "python", "json", "toml", "text")


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make demo` makes."""
    return made_demo(tmp_path_factory)[0]


@pytest.fixture
def reader(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Reader:
    root = clone(tmp_path / "pairform")
    monkeypatch.chdir(root)
    monkeypatch.setenv("COLUMNS", "120")
    forget_new_blocks(monkeypatch)
    return Reader(root, demo, CommandLine(monkeypatch, capsys), capsys)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_a_page_does_what_it_says(page: Path, reader: Reader) -> None:
    if page.name in NEEDS and find_spec(NEEDS[page.name]) is None:
        pytest.skip(f"{NEEDS[page.name]} is not installed")
    for block in blocks(page):
        assert block.language in LANGUAGES, f"{page.name}:{block.line}: a block in {block.language!r}"
        reader.follow(block, page)


def test_a_shell_understands_the_readme_as_the_reader_does(tmp_path: Path) -> None:
    """Its commands in one real shell, with the Makefile's: the same programs with the same words in the same folders."""
    root = where = clone(tmp_path / "pairform")
    typed = [command for block in blocks(PAGES[0]) if block.language in ("console", "bash") for command in commands(block)]
    told = told_by_a_shell([command.line for command in typed], root, tmp_path / "told")
    assert len(told) == len(typed)
    for command, calls in zip(typed, told, strict=True):
        program, *words = command.words
        if program == "pairform":
            assert calls == [[str(where), program, *words]]
        elif program == "cd":
            where = where / words[0]
        elif words == ["demo"]:
            assert calls == [[str(root), "python", f"examples/{name}.py"] for name in ("checkpoints", "convert")]
        elif words == ["test"]:
            assert [call[:4] for call in calls] == [[str(root), "python", "-m", "pytest"]]
        else:
            assert program == "source"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    assert [target for target in links(page) if not target.exists()] == []


def test_a_shown_line_that_was_not_printed_is_found() -> None:
    assert missing_line(["a  b", "...", "d ... f"], "a b\nc\nd e f\n") is None
    assert missing_line(["d", "a"], "a\nd\n") == "a"
