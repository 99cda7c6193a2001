"""How commands fail, and what they cost before they start."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import pairform
from tests.command_line.runner import CommandLine, document, refused


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["show", "t5gemma-2b"], ["'t5gemma-2b'", "Did you mean"]),
        (["show", "t5gemma-2b-2b", "--set", "decoder.dept=4"], ["decoder.dept", "unknown field", "Did you mean 'depth'"]),
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
        (["inspect", "t5gemma-2b-2b", "--batch", "0"], "--batch: found '0', expected a number greater than or equal to 1"),
        (["inspect", "t5gemma-2b-2b", "--batch", "x"], "--batch: found 'x', expected a whole number"),
        (["inspect", "t5gemma-2b-2b", "--batchh", "1"], "--batch"),
        (["show", "t5gemma-2b-2b", "--diagram", "png"], "--diagram: found 'png', expected mermaid or svg"),
        (["study", "run"], "`pairform study run --help`"),
        (["plan", "--cross-attention", "copy"], "'copy'"),
        (["plan", "--encoder-layers", "all"], "every:N"),
        (["convert"], "--out"),
        (["convert", "--out", "new", "--format", "gguf"], "'gguf'"),
        (["convert", "--out", "new", "--dtype", "int4"], "'int4'"),
        (["export", "folder", "--out", "new", "--format", "gguf"], "'gguf'"),
        (["generate", "folder"], "--text and --ids"),
        (["generate", "folder", "--text", "a", "--ids", "5"], "--text and --ids"),
        (["generate", "folder", "--ids", "five"], "'five'"),
        (["generate", "folder", "--ids", "5", "--device", "abacus"], "'abacus'"),
    ],
)
def test_wrong_usage_ends_with_2_and_says_what_is_expected(run: CommandLine, words: list[str], message: str) -> None:
    result = run(*words)
    refused(result, 2, message)
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1
    assert not any(word in result.err for word in ("Invalid value", "Input should", "Error:"))


def test_no_arguments_are_answered_with_help(run: CommandLine) -> None:
    for words in ([], ["study"]):
        result = run(*words)
        assert result.code == 2
        assert (result.out + result.err).startswith("Usage: ")


CODES = "\x1b]0;t\x07\x1b[2J\r\x9b2J\u202e"
"""What a terminal acts on: a title, an erased screen, a line begun again, text turned round."""


def test_no_name_of_a_strangers_reaches_the_terminal_raw(run: CommandLine, tmp_path: Path) -> None:
    labels = {"extends": "t5gemma-s-s", "head": {"name": "sequence_classification", "labels": [f"a{CODES}\nok", "b"]}}
    wrong = {"extends": "t5gemma-s-s", f"field{CODES}": 1}
    shown = {"named": labels, "wrong": wrong, f"file{CODES.replace('/', '')}": labels}
    for name, content in shown.items():
        (tmp_path / name).write_text(json.dumps(content))
    for words in (
        *(("show", tmp_path / name) for name in shown),
        ("show", tmp_path / "named", "--json"),
        ("show", tmp_path / "named", "--diagram", "mermaid"),
        ("diff", "t5gemma-s-s", tmp_path / "named"),
        ("diff", "t5gemma-s-s", tmp_path / f"file{CODES}", "--json"),
        ("inspect", tmp_path / f"file{CODES}", "--source-length", 2, "--target-length", 2),
        ("inspect", "t5gemma-s-s", "--dtype", CODES),
    ):
        result = run(*words)
        text = result.out + result.err
        assert text
        assert all(line.isprintable() for line in text.split("\n")), words
    assert document(run("show", tmp_path / "named", "--json"))["head"]["labels"][0] == f"a{CODES}\nok"


def test_token_ids_beyond_the_vocabulary_are_refused(run: CommandLine, pair: Path) -> None:
    refused(run("generate", pair, "--ids", "5 96"), 1, "96", "up to 95")


def test_a_reason_that_holds_for_many_tensors_is_given_once(run: CommandLine, sources: tuple[Path, Path]) -> None:
    result = run("plan", "--encoder", sources[0], "--decoder", sources[1], "--cross-attention", "self_attention")
    refused(result, 1, "an encoder of width 48 beside a decoder of width 32")
    assert result.err.count("error: ") == 1


def test_an_unforeseen_error_is_one_message_too(run: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pairform.registry.documents.preset_sizes", lambda: 1 // 0)
    refused(run("presets"), 1, "ZeroDivisionError", "--debug")


def test_debug_shows_the_traceback(run: CommandLine) -> None:
    with pytest.raises(pairform.PairformError, match="missing"):
        run("--debug", "show", "missing")


def test_help_and_presets_do_without_torch() -> None:
    script = (
        "import sys\n"
        "from pairform.cli.main import main\n"
        "for words in (['--help'], ['convert', '--help'], ['presets']):\n"
        "    sys.argv = ['pairform', *words]\n"
        "    try: main()\n"
        "    except SystemExit as end: assert not end.code\n"
        "print('torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "t5gemma-9b-2b" in ran.stdout
    assert ran.stdout.splitlines()[-1] == "False"
