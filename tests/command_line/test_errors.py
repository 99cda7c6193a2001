"""How commands fail, and what they cost before they start."""

import subprocess
import sys
from pathlib import Path

import pytest

import pairform
from tests.command_line.runner import CommandLine, refused


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["show", "t5gemma-2b"], ["'t5gemma-2b'", "Did you mean"]),
        (["show", "t5gemma-2b-2b", "--set", "decoder.dept=4"], ["decoder.dept", "unknown field"]),
        (["blocks", "nrom"], ["'nrom'", "Did you mean 'norm'"]),
        (["schema", "--out", "missing/folder/schema.json"], ["missing/folder/schema.json"]),
        (["verify", "missing"], ["missing", "no such folder"]),
        (["export", "missing", "--out", "new"], ["missing", "no such folder"]),
        (["generate", "missing", "--ids", "5"], ["missing", "no such folder"]),
        (["convert", "--encoder", "missing", "--decoder", "missing", "--out", "new"], ["missing", "no such folder"]),
        (["plan", "--encoder", "missing", "--decoder", "missing"], ["missing", "no such folder"]),
    ],
)
def test_work_that_fails_ends_with_1_and_one_message(run: CommandLine, words: list[str], message: list[str]) -> None:
    result = run(*words)
    refused(result, 1, *message)
    assert result.err.count("error: ") == 1
    assert result.out == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing"], "No such command 'nothing'"),
        (["show"], "SPEC"),
        (["show", "t5gemma-2b-2b", "--set", "decoder.depth"], "path=value"),
        (["inspect", "t5gemma-2b-2b", "--dtype", "int8"], "'int8'"),
        (["inspect", "t5gemma-2b-2b", "--batch", "0"], "--batch"),
        (["plan", "--cross-attention", "copy"], "'copy'"),
        (["plan", "--encoder-layers", "all"], "every:N"),
        (["convert"], "--out"),
        (["convert", "--out", "new", "--format", "onnx"], "'onnx'"),
        (["convert", "--out", "new", "--dtype", "int4"], "'int4'"),
        (["export", "folder", "--out", "new", "--format", "onnx"], "'onnx'"),
        (["generate", "folder"], "--text and --ids"),
        (["generate", "folder", "--text", "a", "--ids", "5"], "--text and --ids"),
        (["generate", "folder", "--ids", "five"], "'five'"),
        (["generate", "folder", "--ids", "5", "--device", "abacus"], "'abacus'"),
    ],
)
def test_wrong_usage_ends_with_2_and_says_what_is_expected(run: CommandLine, words: list[str], message: str) -> None:
    refused(run(*words), 2, message)


def test_token_ids_beyond_the_vocabulary_are_refused(run: CommandLine, pair: Path) -> None:
    refused(run("generate", pair, "--ids", "5 96"), 1, "96", "up to 95")


def test_a_reason_that_holds_for_many_tensors_is_given_once(run: CommandLine, sources: tuple[Path, Path]) -> None:
    result = run("plan", "--encoder", sources[0], "--decoder", sources[1], "--cross-attention", "self_attention")
    refused(result, 1, "an encoder of width 48 beside a decoder of width 32")
    assert result.err.count("error: ") == 1


def test_an_unforeseen_error_is_one_message_too(run: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pairform.registry.preset_sizes.preset_sizes", lambda: 1 // 0)
    refused(run("presets"), 1, "ZeroDivisionError", "--debug")


def test_debug_shows_the_traceback(run: CommandLine) -> None:
    with pytest.raises(pairform.PairformError, match="missing"):
        run("--debug", "show", "missing")


def test_help_and_presets_do_without_torch() -> None:
    script = (
        "import sys\n"
        "from pairform.cli import main\n"
        "for words in (['--help'], ['convert', '--help'], ['presets']):\n"
        "    sys.argv = ['pairform', *words]\n"
        "    try: main()\n"
        "    except SystemExit as end: assert not end.code\n"
        "print('torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "t5gemma-9b-2b" in ran.stdout
    assert ran.stdout.splitlines()[-1] == "False"
