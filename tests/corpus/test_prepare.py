"""A prepared corpus holds the tokens of its documents, whatever the files, the number of processes and the sizes of shards."""

import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pairform.training.data.corpus import documents as reading
from pairform.training.data.corpus.prepare import prepare
from pairform.training.data.corpus.shards import Shards
from pairform.training.data.corpus.writing import held_out
from tests.corpus.small import (
    WORDS,
    contents,
    documents,
    joined,
    pairs,
    texts,
    word_tokenizer,
    write_corpus,
    write_lines,
    write_spec,
)


def test_documents_come_back_in_order_from_files_of_every_kind(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", [{"text": "one"}, {"text": ""}, {"text": "zwö"}])
    write_lines(tmp_path / "b.jsonl.gz", [{"text": "three"}])
    (tmp_path / "c.txt").write_text("four\nfive\n")
    (tmp_path / "d.md.gz").write_bytes(gzip.compress(b"six"))
    (tmp_path / "e.txt").write_text("")
    (tmp_path / "f.jsonl").write_text('\n{"text": "seven", "other": 1}\n\n')
    corpus = write_spec(tmp_path, sources=[{"files": ["*.jsonl*", "*.txt", "*.md.gz"], "name": "all"}])
    shards = prepare(corpus, tmp_path / "out")
    wanted = ["one", "zwö", "three", "four\nfive\n", "six", "seven"]
    assert documents(shards) == [[text.encode() for text in wanted]]
    (stream,) = shards.train
    assert (stream.name, stream.weight, stream.documents) == ("all", 1.0, 6)
    assert stream.length == sum(len(text.encode()) + 1 for text in wanted)
    (source,) = shards.manifest.sources
    assert [file.name for file in source.files] == ["a.jsonl", "b.jsonl.gz", "c.txt", "d.md.gz", "e.txt", "f.jsonl"]
    assert source.dropped == 2
    assert (shards.tokenizer, shards.vocabulary, shards.manifest.dtype.name) == (None, 256, "uint8")
    shards.verify()


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    shard_tokens=st.integers(1, 30),
    data=st.data(),
)
def test_a_window_is_the_stream_between_its_ends(
    lengths: list[int], shard_tokens: int, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("corpus")
    rows = [chr(97 + index) * length for index, length in enumerate(lengths)]
    shards = prepare(write_corpus(folder, rows, shard_tokens=shard_tokens), folder / "out")
    (stream,) = shards.train
    whole = [token for row in rows for token in [*row.encode(), -1]]
    assert stream.length == len(whole)
    begin = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(begin, len(whole)))
    fragments = stream.fragments(begin, end)
    assert joined(fragments) == whole[begin:end]
    firsts = {position for position in range(len(whole)) if position == 0 or whole[position - 1] == -1}
    place = begin
    for fragment in fragments:
        assert fragment.tokens.dtype == np.int32
        assert fragment.starts == (place in firsts)
        place += len(fragment.tokens) + fragment.ends
    records = shards.manifest.sources[0].train.text
    assert all(record.tokens >= shard_tokens for record in records[:-1])
    assert all(record.tokens - shard_tokens < max(lengths) for record in records)


def test_a_window_outside_the_stream_is_an_index_error(tmp_path: Path) -> None:
    (stream,) = prepare(write_corpus(tmp_path, ["abc"]), tmp_path / "out").train
    for begin, end in ((0, 5), (-1, 2), (3, 2)):
        with pytest.raises(IndexError):
            stream.fragments(begin, end)


@pytest.mark.parametrize("tokenizer", ["bytes", "words.json"])
def test_the_number_of_processes_changes_no_byte(tokenizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "BATCH", 500)
    word_tokenizer(tmp_path / "words.json")
    source = {"files": ["corpus.jsonl"]}
    sources = [source | {"weight": 2.0}, source | {"source": "text", "target": "text", "name": "pairs"}]
    corpus = write_corpus(tmp_path, texts(200), sources=sources, tokenizer=tokenizer, held_out=0.2, shard_tokens=300)
    for jobs in (1, 2, 3):
        prepare(corpus, tmp_path / str(jobs), jobs=jobs)
    assert contents(tmp_path / "1") == contents(tmp_path / "2") == contents(tmp_path / "3")


def test_a_tokenizer_encodes_whole_texts_and_is_copied(tmp_path: Path) -> None:
    tokenizer = word_tokenizer(tmp_path / "words.json")
    tokenizer.no_truncation()
    shards = prepare(write_corpus(tmp_path, rows := texts(20), tokenizer="words.json"), tmp_path / "out")
    (stream,) = shards.train
    found = [fragment.tokens.tolist() for fragment in stream.fragments(0, stream.length)]
    assert found == [tokenizer.encode(row, add_special_tokens=False).ids for row in rows]
    assert (shards.vocabulary, shards.manifest.dtype.name) == (len(WORDS) + 4, "uint8")
    assert shards.tokenizer == tmp_path / "out" / "tokenizer.json"
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (tmp_path / "words.json").read_bytes()


@pytest.mark.parametrize(("size", "dtype"), [(250, "uint8"), (260, "uint16"), (66_000, "uint32")])
def test_tokens_take_the_smallest_type_that_holds_the_vocabulary(size: int, dtype: str, tmp_path: Path) -> None:
    words = [f"w{number}" for number in range(size)]
    word_tokenizer(tmp_path / "words.json", words)
    shards = prepare(write_corpus(tmp_path, [words[-1]], tokenizer="words.json"), tmp_path / "out")
    assert shards.manifest.dtype.name == dtype
    assert shards.train[0].fragments(0, 1)[0].tokens.tolist() == [size + 3]


@pytest.mark.parametrize("parsed", [False, True])
def test_special_tokens_in_a_text_become_ids_on_request(parsed: bool, tmp_path: Path) -> None:
    word_tokenizer(tmp_path / "words.json")
    source = {"files": ["corpus.jsonl"], "special_tokens": parsed}
    corpus = write_corpus(tmp_path, ["the <eos> fox"], sources=[source], tokenizer="words.json")
    (stream,) = prepare(corpus, tmp_path / "out").train
    assert (1 in joined(stream.fragments(0, stream.length))) is parsed


def test_a_long_text_is_tokenised_in_the_same_pieces_from_every_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "PIECE", 100)
    monkeypatch.setattr(reading, "CHUNK", 64)
    word_tokenizer(tmp_path / "words.json")
    text = "\n".join(texts(300, seed=1)) + " " + "x" * 1000 + "ü" * 99
    (tmp_path / "long.txt").write_text(text)
    found = []
    for name, files in (("line", "corpus.jsonl"), ("text", "long.txt")):
        corpus = write_corpus(
            tmp_path, [text], sources=[{"files": [files]}], tokenizer="words.json", held_out=0.5, shard_tokens=50
        )
        shards = prepare(corpus, tmp_path / name)
        (stream,) = [*shards.train, *shards.held_out]
        found.append(joined(stream.fragments(0, stream.length)))
    assert found[0] == found[1]
    assert len(found[0]) > 1000


def test_a_long_text_is_one_document_of_its_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if it fills a shard before it ends, with documents before and behind it in the same source."""
    monkeypatch.setattr(reading, "PIECE", 10)
    monkeypatch.setattr(reading, "CHUNK", 7)
    wanted = ["ab", "cde" * 40, "", "fg", "ü" * 33]
    for number, text in enumerate(wanted):
        (tmp_path / f"{number}.txt").write_text(text)
    corpus = write_spec(tmp_path, sources=[{"files": ["*.txt"]}], shard_tokens=50)
    for jobs in (1, 2):
        shards = prepare(corpus, tmp_path / f"out{jobs}", jobs=jobs)
        assert documents(shards) == [[text.encode() for text in wanted if text]]
        assert [shard.documents for shard in shards.manifest.sources[0].train.text] == [2, 2]


def test_held_out_documents_are_a_share_that_no_other_setting_changes(tmp_path: Path) -> None:
    rows = [f"document {number}" for number in range(400)]
    corpus = write_corpus(tmp_path, rows, held_out=0.25)
    shards = prepare(corpus, tmp_path / "out")
    train, kept = documents(shards)[0], documents(shards, "held_out")[0]
    assert sorted(train + kept) == sorted(row.encode() for row in rows)
    assert len(kept) == int(held_out(0, np.arange(400), 0.25).sum())
    other = prepare(write_corpus(tmp_path, rows, held_out=0.25, shard_tokens=100), tmp_path / "other", jobs=2)
    assert documents(other, "held_out")[0] == kept


def test_held_out_shares_are_as_declared_and_independent_between_sources() -> None:
    count = 200_000
    chosen = [held_out(source, np.arange(count), 0.01) for source in (0, 1)]
    for found in chosen:
        assert abs(int(found.sum()) - 2000) < 4 * np.sqrt(2000)
    assert int((chosen[0] & chosen[1]).sum()) < 60
    assert not held_out(0, np.arange(count), 0.0).any()


def test_a_window_takes_no_memory_for_the_other_documents(tmp_path: Path) -> None:
    (stream,) = prepare(write_corpus(tmp_path, ["ab"] * 50_000), tmp_path / "out").train
    stream.fragments(0, 10)
    tracemalloc.start()
    try:
        stream.fragments(90_000, 90_100)
        assert tracemalloc.get_traced_memory()[1] < 50_000
    finally:
        tracemalloc.stop()


def test_pairs_are_two_streams_and_empty_ones_are_left_out(tmp_path: Path) -> None:
    rows: list[Any] = [{"q": f"question {number}", "a": f"answer {number}" * number} for number in range(50)]
    source = {"files": ["corpus.jsonl"], "source": "q", "target": "a"}
    shards = prepare(write_corpus(tmp_path, rows, sources=[source], shard_tokens=200), tmp_path / "out")
    assert pairs(shards) == [[(row["q"].encode(), row["a"].encode()) for row in rows[1:]]]
    assert (shards.train, shards.held_out, shards.manifest.sources[0].dropped) == ([], [], 1)
    with pytest.raises(IndexError):
        shards.train_pairs[0].pair(49)


def test_the_same_corpus_again_changes_nothing_and_another_is_refused(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path, texts(20))
    first = prepare(corpus, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    again = prepare(corpus, tmp_path / "out", jobs=2)
    assert again.digest == first.digest
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    other = prepare(write_corpus(tmp_path, texts(20, seed=2)), tmp_path / "out", overwrite=True)
    assert other.digest != first.digest
    assert documents(Shards.open(tmp_path / "out")) == [[text.encode() for text in texts(20, seed=2)]]


def test_a_folder_depends_on_no_path_and_no_time(tmp_path: Path) -> None:
    for name in ("one", "two"):
        prepare(write_corpus(tmp_path / name, texts(20)), tmp_path / name / "out")
    assert contents(tmp_path / "one" / "out") == contents(tmp_path / "two" / "out")
    manifest = json.loads((tmp_path / "one" / "out" / "manifest.json").read_text())
    assert str(tmp_path) not in json.dumps(manifest)
