"""What `--help` and `--version` say, and that the examples in help texts work."""

import io
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

import pairform
from pairform.cli import main as command_line
from tests.command_line.runner import CommandLine

COMMANDS = [command.callback.__name__ for command in command_line.app.registered_commands if command.callback]


def test_every_command_explains_itself(run: CommandLine) -> None:
    text = run("--help").out
    assert "convert" in COMMANDS
    for command in COMMANDS:
        summary = re.search(rf"^  {command} +(.+)$", text, re.MULTILINE)
        assert summary, command
        assert not summary[1].endswith("..."), f"{command}: its first sentence is too long for the list of commands"
        result = run(command, "--help")
        assert result.code == 0
        assert "Usage: pairform" in result.out


def test_every_option_says_what_it_is(run: CommandLine) -> None:
    """An option without a text has nothing beside its name but its default."""
    for command in COMMANDS:
        options = run(command, "--help").out.partition("Options:")[2].partition("Examples:")[0]
        for entry in re.split(r"\n  (?=-)", options)[1:]:
            says = re.sub(r"\[(default|x|required)[^]]*\]", "", entry.partition("  ")[2]).strip()
            assert len(says.split()) > 1, (command, entry)


def test_examples_in_help_texts_work(
    run: CommandLine, sources: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, source in zip(("gemma-large", "gemma-small"), sources, strict=True):
        shutil.copytree(source, tmp_path / name)
    (tmp_path / "gemma-small" / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }} {% endfor %}")
    (tmp_path / "questions.jsonl").write_text('{"text": "the quick brown fox"}\n')
    examples = {command.__name__: list(lines) for command, lines in command_line.COMMANDS.items()}
    assert list(examples) == COMMANDS
    for command in COMMANDS:
        lines = [line.strip() for line in run(command, "--help").out.partition("Examples:")[2].splitlines() if line.strip()]
        assert lines == examples[command]
        for line in lines:
            monkeypatch.setattr(sys, "stdin", io.StringIO("the fox\n"))
            result = run(*shlex.split(line)[1:])
            assert result.code == 0, (line, result.err)


def test_version(run: CommandLine) -> None:
    result = run("--version")
    assert (result.code, result.out) == (0, f"pairform {pairform.__version__}\n")
