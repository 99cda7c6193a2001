"""What is read of a study's files, at the bounds of what may be read."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from pairform.training.data import files
from pairform.training.data.batches import MOST_TOKENS
from pairform.training.data.files import (
    DATA_BYTES,
    LINE_BYTES,
    MOST_LINES,
    RATIO,
    SMALL,
    Allowance,
    is_jsonl,
    read_lines,
    read_text,
    text_at,
)
from tests.broken.damage import refused


def objects(count: int) -> str:
    return "".join(json.dumps({"text": str(number)}) + "\n" for number in range(count))


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_is_read_whole_in_pieces_and_lines(packed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "CHUNK", 7)
    file = tmp_path / ("a.jsonl.gz" if packed else "a.jsonl")
    content = "\n" + objects(3) + "  \n" + '{"text": "ü"}'
    file.write_bytes(gzip.compress(content.encode()) if packed else content.encode())
    assert read_text(file, Allowance()) == content
    places = [f"{file}: line {number}" for number in (2, 3, 4, 6)]
    assert list(read_lines(file)) == [(place, {"text": text}) for place, text in zip(places, ["0", "1", "2", "ü"], strict=True)]


def test_files_share_an_allowance_of_unpacked_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a" * 30)
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"b" * 70))
    for left in (100, 99):
        allowance = Allowance(left)
        read_text(tmp_path / "a.txt", allowance)
        assert allowance.left == left - 30
        if left == 100:
            assert read_text(tmp_path / "b.txt.gz", allowance) == "b" * 70
        else:
            refused(lambda allowance=allowance: read_text(tmp_path / "b.txt.gz", allowance), "b.txt.gz", "up to here")  # type: ignore[misc]
    allowance = Allowance(100)
    (tmp_path / "c.jsonl").write_text(objects(3))
    list(read_lines(tmp_path / "c.jsonl", allowance))
    assert allowance.left == 100 - len(objects(3))


def test_packed_files_may_unpack_to_so_many_bytes_and_times_their_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A length that is a whole number of times the size it packs to."""
    count = next(count for count in range(100, 9000) if count % len(gzip.compress(b"a" * count)) == 0)
    packed = gzip.compress(b"a" * count)
    file, plain = tmp_path / "a.txt.gz", tmp_path / "a.txt"
    file.write_bytes(packed)
    plain.write_bytes(b"a" * count)
    times = count // len(packed)
    for ratio, small, allowed in ((times, 1, True), (times - 1, 1, False), (1, count, True), (1, count - 1, False)):
        monkeypatch.setattr(files, "RATIO", ratio)
        monkeypatch.setattr(files, "SMALL", small)
        assert len(read_text(plain, Allowance())) == count, "what is not packed has no ratio"
        if allowed:
            assert len(read_text(file, Allowance())) == count
        else:
            refused(
                lambda: read_text(file, Allowance()), "a.txt.gz", f"{len(packed)} bytes that unpack to more than {ratio} times"
            )


def test_lines_may_be_so_long_and_so_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, line = tmp_path / "a.jsonl", json.dumps({"text": "0"}) + "\n"
    file.write_text(line * 3)
    for limit, most, words in (
        (len(line), 3, None),
        (len(line) - 1, 3, ("line 1", f"more than {len(line) - 1} bytes")),
        (len(line), 2, ("line 3", "more than 2 lines")),
    ):
        monkeypatch.setattr(files, "LINE_BYTES", limit)
        monkeypatch.setattr(files, "MOST_LINES", most)
        if words is None:
            assert len(list(read_lines(file))) == 3
        else:
            refused(lambda: list(read_lines(file)), *words)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", b"", ("an empty file",)),
        ("a.jsonl", b"\n  \n", ("an empty file",)),
        ("a.jsonl", b'{"text": ""}\n\xff', ("line 2", "no UTF-8")),
        ("a.jsonl", b'{"text": ""}\n"text"', ("line 2", "found str", "one object")),
        ("a.jsonl.gz", gzip.compress(b'{"text": ""}\n' * 9, mtime=0)[:-9], ("a.jsonl.gz", "no gzip")),
        ("a.jsonl.gz", b"plain", ("a.jsonl.gz", "no gzip")),
        ("b.jsonl", None, ("b.jsonl", "No such file")),
    ],
)
def test_what_is_no_file_of_objects_is_refused(
    name: str, content: bytes | None, words: tuple[str, ...], tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    refused(lambda: list(read_lines(tmp_path / name)), *words)


def test_a_text_of_spaces_is_an_empty_file(tmp_path: Path) -> None:
    for content in (b"", b" \n\t"):
        (tmp_path / "a.txt").write_bytes(content)
        refused(lambda: read_text(tmp_path / "a.txt", Allowance()), "a.txt", "an empty file")


def test_names_of_files_with_an_object_a_line() -> None:
    names = {"a.jsonl": True, "a.jsonl.gz": True, "a.txt": False, "a.txt.gz": False, "a.jsonl.txt": False, "jsonl": False}
    assert {name: is_jsonl(Path(name)) for name in names} == names


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ({"body": "x"}, ("no field 'text'", "the line has 'body'")),
        ({"text": None}, ("no field 'text'",)),
        ({"text": 3}, ("int in the field 'text'",)),
        ({}, ("no field 'text'", "the line has no field")),
        ({"text": "ab\ud800"}, ("half of a surrogate pair, '\\ud800'", "'text'")),
    ],
)
def test_a_field_without_text_is_refused(line: dict[str, Any], words: tuple[str, ...]) -> None:
    assert text_at("here", {"text": "ü", "body": 3}, "text") == "ü"
    refused(lambda: text_at("here", line, "text"), "here", *words)


def test_the_names_of_a_wide_line_are_told_in_part() -> None:
    line = {f"key{number}": "" for number in range(30)}
    assert "'key19'" in refused(lambda: text_at("here", line, "text"), "'key0'")
    assert "'key20'" not in refused(lambda: text_at("here", line, "text"))


def test_the_bounds_are_those_of_the_documentation() -> None:
    words = " ".join((Path(__file__).parents[2] / "docs" / "study.md").read_text("utf-8").split())
    assert (
        f"may hold {DATA_BYTES / (1 << 30):g} GiB unpacked, a line of a `.jsonl` file {LINE_BYTES / (1 << 20):g} MiB" in words
    )
    assert f"such a file {MOST_LINES:,} lines, and a packed file {RATIO} times its own size" in words
    assert f"or {SMALL / (1 << 20):g} MiB where that is more" in words
    assert f"may hold {MOST_TOKENS:,} tokens" in words
    assert Allowance().left == DATA_BYTES
