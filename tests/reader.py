"""Somebody who reads a page of documentation and types what it shows, in a clone of the repository."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import pairform
from pairform.experiments.study.spec import StudySpec
from pairform.training.adaptation.recipe import read_recipe
from pairform.training.data.corpus.spec import CorpusSpec
from tests.command_line.runner import CommandLine, Result
from tests.forked import pairform_in_two
from tests.pages import Block, Command, commands, missing_line

ROOT = Path(__file__).parents[1]
IN_TWO = ("--standalone", "--nproc-per-node", "2", "-m", "pairform")
"""torchrun's words before those of a command in two processes."""


def clone(folder: Path) -> Path:
    """The repository as `git clone` leaves it: nothing installed, nothing made."""
    folder.mkdir()
    for path in ROOT.iterdir():
        if path.name not in (".git", ".venv", "demo"):
            (folder / path.name).symlink_to(path)
    return folder


def targets() -> set[str]:
    """What the Makefile can make."""
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def check_document(document: dict[str, Any]) -> None:
    """A study, a corpus, a recipe, a whole document, one that extends another, or else a patch on T5Gemma 2B-2B."""
    if "sources" in document:
        assert list(CorpusSpec.read(document).check()) == []
        return
    if "batch" in document:
        read_recipe(document)
        return
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


class Reader:
    """Follows a page in this process, from the root of a clone on; its Python blocks are one session.

    `pairform` runs here and not in a process of its own, which would import torch each time, and torchrun's two processes are
    forked from one that has imported it; `make demo` copies `demo`.
    Like a shell, it has no `pairform` and no packages before the environment is made and activated.
    """

    def __init__(self, root: Path, demo: Path, pairform_command: CommandLine, capsys: pytest.CaptureFixture[str]) -> None:
        self.root = root
        self.demo = demo
        self.pairform = pairform_command
        self.capsys = capsys
        self.names: dict[str, Any] = {"__name__": "page"}
        self.printed = ""
        self.installed = self.active = False

    def follow(self, block: Block, page: Path) -> None:
        if block.file:
            save(block)
        if block.language in ("console", "bash"):
            for command in commands(block):
                self.run(command)
        elif block.language == "sh":
            for command in commands(block):
                self.check_options(command)
        elif block.language == "python":
            assert self.active, f"{page.name}:{block.line}: Python before `source .venv/bin/activate`"
            self.capsys.readouterr()
            exec(compile("\n" * (block.line - 1) + block.text, page, "exec"), self.names)
            self.printed = self.capsys.readouterr().out
        elif block.language == "text" and not block.file:
            assert missing_line(block.text.splitlines(), self.printed) is None, self.printed
        elif block.language == "json":
            check_document(json.loads(block.text))
        elif block.language == "toml":
            tomllib.loads(block.text)

    def run(self, command: Command) -> None:
        """The command ends as shown, and prints what is shown."""
        result = self.result(command.words)
        assert (result.code != 0) == command.fails, (command.words, result)
        printed = result.out + result.err
        assert missing_line(command.shown, printed) is None, f"{command.words} printed:\n{printed}"

    def check_options(self, command: Command) -> None:
        """A command that this machine cannot run: if it is one of pairform's, it has the options."""
        words = command.words
        if "pairform" not in words:
            assert words[0] == "hf", f"{words}: a command that no page may need"
            return
        own = words[words.index("pairform") + 1 :]
        names = own[: 2 if own[0] in ("adapt", "data", "study") else 1]
        text = self.pairform(*names, "--help").out
        missing = [word for word in own if word.startswith("--") and word not in text.split()]
        assert "Usage:" in text, words
        assert not missing, f"{words}: no option {missing}"

    def result(self, words: list[str]) -> Result:
        program, *rest = words
        if program == "make":
            return self.make(rest)
        if words == ["source", ".venv/bin/activate"]:
            assert self.installed, "no .venv before a `make`"
            assert Path.cwd() == self.root, "no .venv here: it is in the repository's root"
            self.active = True
        elif program == "cd":
            os.chdir(rest[0])
        elif program == "pairform":
            assert self.active, f"{words}: command not found before `source .venv/bin/activate`"
            return self.in_this_process(rest)
        else:
            assert program in ("python", "torchrun"), f"{words}: a command that no page may need"
            assert self.active, f"{words}: not the repository's Python before `source .venv/bin/activate`"
            if program == "torchrun":
                assert tuple(rest[: len(IN_TWO)]) == IN_TWO, f"{words}: other options than {IN_TWO}"
                return Result(0, "".join(pairform_in_two(*rest[len(IN_TWO) :], said=self.root.parent / "said")), "")
            ran = subprocess.run([sys.executable, *rest], capture_output=True, text=True, check=False)
            return Result(ran.returncode, ran.stdout, ran.stderr)
        return Result(0, "", "")

    def make(self, wanted: list[str]) -> Result:
        assert Path.cwd() == self.root, "no Makefile here: it is in the repository's root"
        assert set(wanted) <= targets()
        self.installed = True
        if "demo" in wanted:
            shutil.rmtree("demo", ignore_errors=True)
            shutil.copytree(self.demo, "demo")
        return Result(0, "", "")

    def in_this_process(self, words: list[str]) -> Result:
        """`> FILE` behind a command works as in a shell."""
        if words[-2:-1] != [">"]:
            return self.pairform(*words)
        result = self.pairform(*words[:-2])
        Path(words[-1]).write_text(result.out)
        return result


def save(block: Block) -> None:
    """The file that the page says to save; one that is in the repository must hold what is shown."""
    assert block.file
    assert f"`{block.file}`" in block.before or f"({block.file})" in block.before, f"{block.file}: not named above its text"
    file = ROOT / block.file if (ROOT / block.file).exists() else Path(block.file)
    if file.exists() and file.resolve().is_relative_to(ROOT):
        assert file.read_text() == block.text, f"{file} holds something else"
    else:
        file.write_text(block.text)


TELLS = """#!/bin/sh
printf '%s\\t' "$PWD" "${0##*/}" "$@" >> "$TOLD"
echo >> "$TOLD"
[ "$1" != examples/checkpoints.py ] || mkdir demo
"""
"""A program that does nothing but to tell where and how it was called. The demo's first script makes its folder."""


def told_by_a_shell(lines: list[str], root: Path, told: Path) -> list[list[list[str]]]:
    """Which programs each line calls in one real shell, from the root of a clone on: the folder, the name, the words of each.

    `make` is the real one; what it installs is there already, and tells.
    """
    bin_folder = root / ".venv" / "bin"
    bin_folder.mkdir(parents=True)
    for name in ("python", "pairform"):
        (bin_folder / name).write_text(TELLS)
        (bin_folder / name).chmod(0o755)
    (bin_folder / "activate").write_text(f'export PATH="{bin_folder}:$PATH"\n')
    (bin_folder / ".installed").touch()
    script = "set -e\n" + "".join(f'echo >> "$TOLD"\n{line}\n' for line in lines)
    ran = subprocess.run(["bash"], input=script, cwd=root, capture_output=True, text=True, env=environment(told))
    assert ran.returncode == 0, ran.stderr
    parts = re.split(r"^\n", told.read_text(), flags=re.MULTILINE)[1:]
    return [[line.rstrip("\t").split("\t") for line in part.splitlines()] for part in parts]


def environment(told: Path) -> dict[str, str]:
    """A shell in which nothing is activated yet."""
    own = str(Path(sys.executable).parent)
    path = [folder for folder in os.environ["PATH"].split(os.pathsep) if folder != own]
    return os.environ | {"PATH": os.pathsep.join(path), "TOLD": str(told)}
