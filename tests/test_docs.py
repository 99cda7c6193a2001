"""Whoever follows README.md, CONTRIBUTING.md or a page of docs/ line by line gets what it shows."""

import runpy
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.command_line.runner import CommandLine
from tests.pages import blocks, links, missing_line
from tests.reader import ROOT, Reader, clone, in_a_shell
from tests.registries import forget_new_blocks

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
NEEDS = {"quantise.md": "torchao"}
"""Pages that are about an optional package."""
LANGUAGES = ("console", "bash", "python", "json", "toml", "text")


def named(page: Path) -> str:
    return page.name if page.parent == ROOT else f"docs/{page.name}"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make demo` makes."""
    folder = tmp_path_factory.mktemp("made") / "demo"
    with pytest.MonkeyPatch.context() as patch:
        for script in ("checkpoints.py", "convert.py"):
            patch.setattr("sys.argv", [script, "--out", str(folder)])
            runpy.run_path(str(ROOT / "examples" / script), run_name="__main__")
    return folder


@pytest.fixture
def reader(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Reader:
    root = clone(tmp_path / "pairform")
    monkeypatch.chdir(root)
    monkeypatch.setenv("COLUMNS", "120")
    forget_new_blocks(monkeypatch)
    return Reader(root, demo, CommandLine(monkeypatch, capsys), capsys)


@pytest.mark.parametrize("page", PAGES[1:], ids=named)
def test_a_page_does_what_it_says(page: Path, reader: Reader) -> None:
    if page.name in NEEDS and find_spec(NEEDS[page.name]) is None:
        pytest.skip(f"{NEEDS[page.name]} is not installed")
    for block in blocks(page):
        assert block.language in LANGUAGES, f"{page.name}:{block.line}: a block in {block.language!r}"
        reader.follow(block, page)


def test_the_readme_can_be_followed_in_one_shell(tmp_path: Path) -> None:
    """`make test` alone is left out: it runs this test."""
    in_a_shell(ROOT / "README.md", clone(tmp_path / "pairform"), leave_out=("make test",))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    assert [target for target in links(page) if not target.exists()] == []


def test_a_shown_line_that_was_not_printed_is_found() -> None:
    assert missing_line(["a  b", "...", "d ... f"], "a b\nc\nd e f\n") is None
    assert missing_line(["d", "a"], "a\nd\n") == "a"
