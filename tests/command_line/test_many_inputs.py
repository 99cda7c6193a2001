"""Many inputs of `pairform generate`: a JSONL file in, a JSONL file out."""

import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import pairform
from pairform.cli.generation.many_inputs import batches
from tests.command_line.runner import CommandLine, Result, document, refused
from tests.corpus.small import WORDS, contents
from tests.forked import ended, start_pairform

OPTIONS: dict[str, list[object]] = {
    "greedy": ["--repetition-penalty", 5.0],
    "no repeated pairs": ["--no-repeat-ngram-size", 2, "--min-new-tokens", 3],
    "beams": ["--num-beams", 3, "--no-repeat-ngram-size", 1],
    "a stop string": ["--repetition-penalty", 5.0, "--stop-strings", "1"],
    "a limit with the prompt": ["--repetition-penalty", 5.0, "--max-length", 15],
}


def rows(count: int = 21) -> list[dict[str, Any]]:
    """Texts and ids of many lengths."""
    numbers = random.Random(1)
    texts = [{"text": " ".join(numbers.choices(WORDS, k=numbers.randrange(1, 12))), "id": number} for number in range(count)]
    return [*texts, {"input_ids": [2, 4, 5, 6], "note": "<\u2028ü>"}, {"input_ids": [7]}]


def written(file: Path, lines: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(line) + "\n\n" for line in lines))
    return file


def lines_of(result: Result) -> list[dict[str, Any]]:
    assert result.code == 0, result.err
    return [json.loads(line) for line in result.out.splitlines()]


@pytest.mark.parametrize("alone", [True, False], ids=["a decoder alone", "a pair"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_batches_give_what_each_input_gives_alone(
    run: CommandLine, sources: tuple[Path, Path], pair: Path, alone: bool, options: list[object], tmp_path: Path
) -> None:
    folder = sources[1] if alone else pair
    given = rows(8)
    file = written(tmp_path / "in.jsonl", given)
    limit = [] if "--max-length" in options else ["--max-new-tokens", 7]
    found = lines_of(run("generate", folder, "--inputs", file, *options, *limit, "--batch-size", 4))
    assert [{name: line[name] for name in row} for row, line in zip(given, found, strict=True)] == given
    for row, line in zip(given, found, strict=True):
        words = ["--text", row["text"]] if "text" in row else ["--ids", " ".join(map(str, row["input_ids"]))]
        single = document(run("generate", folder, *words, *options, *limit, "--json"))
        assert line["output_ids"] == single["output_ids"], row
        assert line.get("output_text") == single["text"]
    assert len({tuple(line["output_ids"]) for line in found}) > len(found) // 2


def test_lines_with_pictures(run: CommandLine, seeing: Path, tmp_path: Path) -> None:
    """Relative to the file's folder, and any number a line."""
    for colour in ("red", "blue", "green"):
        Image.new("RGB", (20, 16), colour).save(tmp_path / f"{colour}.png")
    given: list[dict[str, Any]] = [
        {"text": "the <image> fox", "images": ["red.png"]},
        {"text": "the fox the fox"},
        {"text": "<image> the <image>", "images": ["blue.png", "green.png"]},
        {"input_ids": [7, 8, 9], "images": ["green.png"]},
    ]
    words = ["generate", seeing, "--max-new-tokens", 6, "--repetition-penalty", 5.0]
    found = lines_of(run(*words, "--inputs", written(tmp_path / "in.jsonl", given)))
    for row, line in zip(given, found, strict=True):
        own = ["--text", row["text"]] if "text" in row else ["--ids", "7 8 9"]
        images = [part for name in row.get("images", []) for part in ("--image", tmp_path / name)]
        assert line["output_ids"] == document(run(*words, *own, *images, "--json"))["output_ids"]
    assert len({tuple(line["output_ids"]) for line in found}) == 4
    wrong: tuple[tuple[Any, str], ...] = (
        ("red.png", "a list"),
        (["none.png"], "no file 'none.png'"),
        (["red.png"] * 2, "1 places"),
    )
    for images, message in wrong:
        file = written(tmp_path / "in.jsonl", [{"text": "the <image>", "images": images}])
        refused(run(*words, "--inputs", file), 1, "in.jsonl: line 1: i", message)


def test_inputs_of_similar_length_share_a_batch() -> None:
    lengths = [3, 9, 3, 1, 9, 2]
    assert list(batches(lengths, 2, equal=False)) == [[1, 4], [0, 2], [5, 3]]
    assert list(batches(lengths, 4, equal=True)) == [[1, 4], [0, 2], [5], [3]]


def test_the_output_file(run: CommandLine, pair: Path, tmp_path: Path) -> None:
    """It appears whole at the end, and replaces another only if asked."""
    half = {"input_ids": [7], "of a character": "\ud83d"}
    file, out = written(tmp_path / "in.jsonl", [*rows(2), half]), tmp_path / "out.jsonl"
    words = ["generate", pair, "--inputs", file, "--max-new-tokens", 3]
    printed = lines_of(run(*words))
    result = run(*words, "--out", out)
    assert (result.code, result.out, result.err) == (0, "", "")
    assert [json.loads(line) for line in out.read_text().split("\n") if line] == printed
    refused(run(*words, "--out", out), 1, str(out), "exists", "--overwrite")
    out.write_text("old")
    assert run(*words, "--out", out, "--overwrite").code == 0
    assert [json.loads(line) for line in out.read_text().split("\n") if line] == printed
    refused(run(*words, "--out", tmp_path / "no" / "out"), 1, "no such folder")
    refused(run(*words, "--out", tmp_path), 1, "a folder")
    refused(run(*words, "--overwrite"), 2, "--out")
    refused(run(*words, "--image", file), 2, "--image", "--text or --ids")
    refused(run("generate", pair, "--ids", "4", "--out", out), 2, "--out", "--inputs")
    assert sorted(contents(tmp_path)) == ["in.jsonl", "out.jsonl"]


BROKEN = {
    "no JSON": ("{", ("line 2", "no JSON")),
    "no object": ("[1]", ("line 2", "one object")),
    "neither": ('{"txt": "a"}', ("line 2", "'txt'", "'text' and 'input_ids'")),
    "both": ('{"text": "a", "input_ids": [4]}', ("line 2", "'text' and 'input_ids'")),
    "no text": ('{"text": 5}', ("line 2", "'text'")),
    "half of a character": ('{"text": "\\ud800"}', ("line 2", "surrogate")),
    "no ids": ('{"input_ids": []}', ("line 2: input_ids", "[]", "from 0 to 95")),
    "an id beyond the vocabulary": ('{"input_ids": [4, 96]}', ("line 2: input_ids", "96")),
    "pictures for a model without vision": ('{"text": "a", "images": ["in.jsonl"]}', ("line 2: encoder.vision", "no pictures")),
    "no numbers": ('{"input_ids": [true]}', ("line 2: input_ids", "True")),
}


@pytest.mark.parametrize(("line", "words"), BROKEN.values(), ids=BROKEN)
def test_a_broken_line_is_named_before_any_work(
    run: CommandLine, pair: Path, line: str, words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(pairform.Model, "generate")
    (tmp_path / "in.jsonl").write_text('{"text": "the"}\n' + line)
    refused(run("generate", pair, "--inputs", tmp_path / "in.jsonl", "--out", tmp_path / "out"), 1, "in.jsonl", *words)
    assert not (tmp_path / "out").exists()


def test_an_empty_or_missing_file(run: CommandLine, pair: Path, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("\n")
    refused(run("generate", pair, "--inputs", tmp_path / "in.jsonl"), 1, "in.jsonl", "an empty file")
    refused(run("generate", pair, "--inputs", tmp_path / "none.jsonl"), 1, "none.jsonl", "No such file")


def test_an_interrupted_run_leaves_nothing(sources: tuple[Path, Path], tmp_path: Path) -> None:
    file = written(tmp_path / "in.jsonl", [{"input_ids": [2, 4, 5]}] * 1000)
    said = tmp_path / "said"
    words = ("generate", sources[1], "--inputs", file, "--out", tmp_path / "out", "--max-new-tokens", 1000, "--batch-size", 1)
    before = set(contents(tmp_path)) | {"said"}
    said.touch()
    process = start_pairform(*words, said=said, FORCE_COLOR="1", TERM="xterm")
    assert process.pid is not None
    while "inputs" not in said.read_text():  # the progress bar's
        assert process.exitcode is None, said.read_text()
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    assert ended(process) == 128 + signal.SIGINT
    assert said.read_text().endswith("interrupted; nothing was written\n")
    assert set(contents(tmp_path)) == before


def test_a_progress_bar_on_a_terminal(run: CommandLine, pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes standard error for a terminal
    monkeypatch.setenv("TERM", "xterm")
    file = written(tmp_path / "in.jsonl", rows(3))
    result = run("generate", pair, "--inputs", file, "--max-new-tokens", 2)
    assert "5/5" in result.err
    assert len(lines_of(result)) == 5
