"""Parquet and Zstandard files, which pyarrow reads."""

from pathlib import Path
from typing import Any

import pytest

from pairform.training.data.corpus.prepare import prepare
from tests.broken.damage import refused
from tests.corpus.small import contents, documents, pairs, texts, write_corpus, write_spec

pyarrow = pytest.importorskip("pyarrow")


def write_parquet(file: Path, columns: dict[str, Any], **options: Any) -> None:
    from pyarrow import parquet

    parquet.write_table(pyarrow.table(columns), file, **options)


def test_rows_are_documents_in_their_order(tmp_path: Path) -> None:
    rows = texts(300)
    write_parquet(tmp_path / "a.parquet", {"id": list(range(300)), "body": rows}, row_group_size=70)
    corpus = write_spec(tmp_path, sources=[{"files": ["a.parquet"], "field": "body"}], shard_tokens=500)
    read: list[int] = []
    shards = prepare(corpus, tmp_path / "out", report=lambda count, whole: read.append(count))
    assert documents(shards) == [[row.encode() for row in rows]]
    assert sum(read) == (tmp_path / "a.parquet").stat().st_size == shards.manifest.sources[0].files[0].bytes
    prepare(corpus, tmp_path / "two", jobs=2)
    assert contents(tmp_path / "out") == contents(tmp_path / "two")


def test_pairs_and_conversations_in_columns(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "ä"}]
    write_parquet(tmp_path / "a.parquet", {"q": ["one"], "a": ["two"], "chat": [talk]})
    (tmp_path / "t.jinja").write_text("{% for m in messages %}{{ m.content }};{% endfor %}")
    sources = [
        {"files": ["a.parquet"], "source": "q", "target": "a"},
        {"files": ["a.parquet"], "messages": "chat", "name": "chat"},
    ]
    shards = prepare(write_spec(tmp_path, sources=sources, chat_template="t.jinja"), tmp_path / "out")
    assert pairs(shards) == [[(b"one", b"two")], [(b"q;", "ä;".encode())]]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"txt": ["a"]}, ("a.parquet", "no column 'text'", "'txt'")),
        ({"text": [1]}, ("a.parquet: row 1", "int in the field 'text'")),
        ({"text": ["a", None]}, ("a.parquet: row 2", "no field 'text'")),
        ({"text": [b"\xff"]}, ("a.parquet: row 1", "a value that JSON does not have")),
    ],
)
def test_broken_columns_are_refused(columns: dict[str, Any], words: tuple[str, ...], tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", columns)
    refused(lambda: prepare(write_spec(tmp_path, sources=[{"files": ["a.parquet"]}]), tmp_path / "out"), *words)


@pytest.mark.parametrize("damage", ["no Parquet", "half of one", "an empty file"])
def test_broken_files_are_refused(damage: str, tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    write_parquet(file, {"text": texts(50)})
    whole = file.read_bytes()
    file.write_bytes({"no Parquet": b"text" * 99, "half of one": whole[: len(whole) // 2], "an empty file": b""}[damage])
    refused(lambda: prepare(write_spec(tmp_path, sources=[{"files": ["a.parquet"]}]), tmp_path / "out"), "a.parquet", "Parquet")


def test_zstandard_files_are_unpacked_and_truncated_ones_refused(tmp_path: Path) -> None:
    rows = texts(100)
    write_corpus(tmp_path, rows)
    packed = pyarrow.compress((tmp_path / "corpus.jsonl").read_bytes(), codec="zstd", asbytes=True)
    corpus = write_spec(tmp_path, sources=[{"files": ["a.jsonl.zst"]}])
    for frames in (1, 2):
        (tmp_path / "a.jsonl.zst").write_bytes(packed * frames)
        assert documents(prepare(corpus, tmp_path / f"out{frames}")) == [[row.encode() for row in rows * frames]]
    for content in (packed[:-9], packed + b"more", b"no frame"):
        (tmp_path / "a.jsonl.zst").write_bytes(content)
        refused(lambda: prepare(corpus, tmp_path / "broken"), "a.jsonl.zst", "no Zstandard")


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt.zst").write_bytes(pyarrow.compress(bytes(3 << 20), codec="zstd", asbytes=True))
    corpus = write_spec(tmp_path, sources=[{"files": ["a.txt.zst"]}])
    refused(lambda: prepare(corpus, tmp_path / "out"), "a.txt.zst", "times as many")
