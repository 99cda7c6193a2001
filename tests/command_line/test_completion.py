"""Shell completion, as the scripts that `--install-completion` installs ask for it."""

import os
import re
import subprocess
import sys

import pytest

from tests.command_line.runner import CommandLine

SHELLS = ("bash", "zsh", "fish")
HEAVY = ("torch", "numpy", "safetensors", "huggingface_hub", "transformers")


def request(shell: str, words: str) -> dict[str, str]:
    """The environment variables by which a shell's script asks how to complete the last of some words."""
    asked = {"_PAIRFORM_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": words}
    if shell == "bash":
        asked |= {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
    if shell == "fish":
        asked["_TYPER_COMPLETE_FISH_ACTION"] = "get-args"
    return asked


def completed(run: CommandLine, shell: str, words: str, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """What the shell would offer. zsh has it quoted, and fish has a description after a tab."""
    with monkeypatch.context() as context:
        for name, value in request(shell, words).items():
            context.setenv(name, value)
        printed = run().out
    offered = (
        re.findall(r'(?:\(\(|\n)"([^"]+)"', printed)
        if shell == "zsh"
        else [line.split("\t")[0] for line in printed.splitlines()]
    )
    return {word for word in offered if word}


@pytest.mark.parametrize("shell", SHELLS)
def test_commands_options_and_presets_are_completed(shell: str, run: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    for words, expected in {
        "pairform ver": {"verify"},
        "pairform study st": {"status", "stop"},
        "pairform convert --enc": {"--encoder", "--encoder-layers", "--encoder-revision"},
        "pairform study run --ex": {"--executor"},
        "pairform inspect t5gemma-x": {"t5gemma-xl-xl"},
        "pairform diff gemma-2-2b gemma-2-9": {"gemma-2-9b"},
        "pairform inspect no-such-preset": set[str](),
    }.items():
        assert completed(run, shell, words, monkeypatch) == expected, words


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_of_each_shell_is_shown(shell: str, run: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shellingham.detect_shell", lambda: (shell, f"/bin/{shell}"))
    assert f"_PAIRFORM_COMPLETE=complete_{shell}" in run("--show-completion").out


def test_completion_imports_nothing_heavy() -> None:
    asked = os.environ | request("bash", "pairform inspect t5gemma-x")
    command = [sys.executable, "-X", "importtime", "-m", "pairform"]
    ran = subprocess.run(command, env=asked, capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["t5gemma-xl-xl"]
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in ran.stderr.splitlines()}
    assert "typer" in imported
    assert imported.isdisjoint(HEAVY)
