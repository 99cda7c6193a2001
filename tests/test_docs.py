"""Every command, snippet and JSON document in README.md, CONTRIBUTING.md and docs/ does what the page says."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import pairform
from pairform.experiments.study_spec import StudySpec
from tests.checkpoints import gemma2, gemma3, gemma3_text
from tests.command_line.runner import CommandLine, Result
from tests.pages import Block, Command, blocks, commands, links, missing_line
from tests.registries import forget_new_blocks
from tests.tokenizers_small import tokenizer

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
NOT_RUN = ("pip", "git", "make", "cd", "source")
"""They install, fetch, or run what other tests run; `make`'s targets are checked to exist."""
NEEDS = {"quantise.md": "torchao"}
"""Pages that are about an optional package."""
RUN = ("console", "bash", "python", "json", "toml", "text")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that pages start in: two checkpoints and the examples."""
    folder = tmp_path_factory.mktemp("page")
    tokenizer(gemma2(folder / "gemma-large", seed=1, hidden_size=48, num_hidden_layers=6, intermediate_size=96))
    tokenizer(gemma2(folder / "gemma-small", seed=2))
    gemma3_text(folder / "gemma3", seed=3)
    gemma3_text(folder / "gemma3-wide", seed=4, hidden_size=48)
    gemma3(folder / "gemma3-seeing", seed=5)
    return folder


@pytest.fixture
def reader(sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> "Reader":
    folder = tmp_path / "page"
    shutil.copytree(sources, folder)
    for name in ("examples", "registry"):
        (folder / name).symlink_to(ROOT / name)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "120")
    forget_new_blocks(monkeypatch)
    return Reader(CommandLine(monkeypatch, capsys), capsys)


class Reader:
    """Does what a page says, block by block. Its Python blocks share their names."""

    def __init__(self, pairform_command: CommandLine, capsys: pytest.CaptureFixture[str]) -> None:
        self.pairform = pairform_command
        self.capsys = capsys
        self.names: dict[str, Any] = {"__name__": "page"}
        self.printed = ""

    def follow(self, block: Block, page: Path) -> None:
        if block.file:
            Path(block.file).write_text(block.text)
        if block.language in ("console", "bash"):
            for command in commands(block):
                self.run(command)
        elif block.language == "python":
            self.capsys.readouterr()
            exec(compile("\n" * (block.line - 1) + block.text, page, "exec"), self.names)
            self.printed = self.capsys.readouterr().out
        elif block.language == "text":
            assert missing_line(block.text.splitlines(), self.printed) is None, self.printed
        elif block.language == "json":
            check_document(json.loads(block.text))
        elif block.language == "toml":
            tomllib.loads(block.text)

    def run(self, command: Command) -> None:
        """The command ends as shown, and prints what is shown."""
        words = command.words
        if words[0] in NOT_RUN:
            assert words[0] != "make" or set(words[1:]) <= targets()
            return
        result = self.result(words)
        assert (result.code != 0) == command.fails, (words, result)
        printed = result.out + result.err
        assert missing_line(command.shown, printed) is None, f"{words} printed:\n{printed}"

    def result(self, words: list[str]) -> Result:
        """`pairform` runs in this process; `> FILE` behind it works as in a shell."""
        if words[0] != "pairform":
            program = sys.executable if words[0] == "python" else words[0]
            ran = subprocess.run([program, *words[1:]], capture_output=True, text=True, check=False)
            return Result(ran.returncode, ran.stdout, ran.stderr)
        if words[-2] != ">":
            return self.pairform(*words[1:])
        result = self.pairform(*words[1:-2])
        Path(words[-1]).write_text(result.out)
        return result


def check_document(document: dict[str, Any]) -> None:
    """A study, a whole document, one that extends another, or else a patch on T5Gemma 2B-2B."""
    if "seeds" in document:
        StudySpec.read(document)
        return
    schema = pairform.schema()
    if "assembly" in document or "extends" in document:
        pairform.load_spec(document)
        jsonschema.validate(document, schema)
    else:
        pairform.patch(pairform.load_spec("t5gemma-2b-2b"), document)
        jsonschema.validate(document, {"$ref": "#/$defs/ModelSpec:patch", "$defs": schema["$defs"]})


def targets() -> set[str]:
    """What the Makefile can make."""
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name if page.parent == ROOT else f"docs/{page.name}")
def test_a_page_does_what_it_says(page: Path, reader: Reader) -> None:
    if page.name in NEEDS and find_spec(NEEDS[page.name]) is None:
        pytest.skip(f"{NEEDS[page.name]} is not installed")
    for block in blocks(page):
        assert block.language in RUN, f"{page.name}:{block.line}: a block in {block.language!r}"
        reader.follow(block, page)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name if page.parent == ROOT else f"docs/{page.name}")
def test_links_lead_somewhere(page: Path) -> None:
    assert [target for target in links(page) if not target.exists()] == []


def test_a_shown_line_that_was_not_printed_is_found() -> None:
    assert missing_line(["a  b", "...", "d ... f"], "a b\nc\nd e f\n") is None
    assert missing_line(["d", "a"], "a\nd\n") == "a"
