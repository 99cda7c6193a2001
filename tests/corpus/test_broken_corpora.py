"""Broken corpora: each is refused with an error that says what is wrong, and nothing is left behind."""

import errno
import gzip
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from pairform.registry import files
from pairform.training.data import files as data_files
from pairform.training.data.corpus import prepare as preparing
from pairform.training.data.corpus import writing
from pairform.training.data.corpus.prepare import prepare
from tests.broken.damage import edit_json, refused
from tests.corpus.small import contents, texts, word_tokenizer, write_corpus, write_spec

LINE = {"text": "a text", "question": "q", "answer": "a", "number": 7}


def source(**fields: Any) -> dict[str, Any]:
    return {"sources": [{"files": ["corpus.jsonl"]} | fields]}


CORPORA: Mapping[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "a misspelt field": ({"tokeniser": "bytes"}, ("corpus.json: tokeniser", "an unknown field", "'tokenizer'")),
    "a misspelt field of a source": (source(wieght=1.0), ("sources[0].wieght", "'weight'")),
    "no source": ({"sources": []}, ("corpus.json: sources", "at least 1")),
    "no pattern": ({"sources": [{"files": []}]}, ("sources[0].files", "at least 1")),
    "a missing file": ({"sources": [{"files": ["corpsu.jsonl"]}]}, ("sources[0].files", "no file 'corpsu.jsonl'")),
    "an absolute pattern": ({"sources": [{"files": ["/etc/*.conf"]}]}, ("sources[0].files", "a pattern relative to")),
    "a field that no line has": (source(field="texts"), ("corpus.jsonl: line 1", "no field 'texts'", "'text'")),
    "a field that is no text": (source(field="number"), ("corpus.jsonl: line 1", "int in the field 'number'")),
    "half a pair": (source(source="question"), ("sources[0]", "`source`", "`source` and `target`")),
    "two kinds at once": (source(field="text", source="question", target="answer"), ("sources[0]", "`field` and `source`")),
    "answers without messages": (source(answers="all"), ("sources[0]", "`answers`", "`messages`")),
    "no weight": (source(weight=0.0), ("sources[0].weight", "greater than 0")),
    "everything held out": ({"held_out": 1.0}, ("held_out", "less than 1")),
    "empty shards": ({"shard_tokens": 0}, ("shard_tokens", "greater than 0")),
    "two sources of one name": ({"sources": source()["sources"] * 2}, ("sources", "2 sources named", '"name"')),
    "a missing tokenizer": ({"tokenizer": "tokens.json"}, ("tokenizer", "tokens.json: no such file", "a tokenizer.json")),
    "a file that is no tokenizer": ({"tokenizer": "corpus.jsonl"}, ("tokenizer", "a tokenizer.json")),
    "a template for nothing": ({"chat_template": "t.jinja"}, ("chat_template", "`messages`")),
    "conversations without a template": (source(messages="chat"), ("chat_template", "no chat template")),
}


@pytest.mark.parametrize(("changes", "words"), CORPORA.values(), ids=CORPORA)
def test_a_broken_corpus_is_refused(changes: dict[str, Any], words: tuple[str, ...], tmp_path: Path) -> None:
    refused(lambda: prepare(write_corpus(tmp_path, [LINE], **changes), tmp_path / "out"), *words)
    assert not (tmp_path / "out" / "manifest.json").exists()


class File(NamedTuple):
    name: str
    content: bytes
    words: tuple[str, ...]


FILES = {
    "no JSON": File("a.jsonl", b'{"text": "a"}\n{"text": \n', ("a.jsonl: line 2", "no JSON")),
    "no object": File("a.jsonl", b'["a"]\n', ("a.jsonl: line 1", "list", "one object")),
    "no UTF-8 in a line": File("a.jsonl", b'\n{"text": "\xff"}\n', ("a.jsonl: line 2", "no UTF-8")),
    "no UTF-8 in a text": File("a.txt", b"abc\xff", ("a.txt", "no UTF-8")),
    "half of a character at the end": File("a.txt", "abcü".encode()[:-1], ("a.txt", "no UTF-8")),
    "a lone surrogate": File("a.jsonl", b'{"text": "\\ud800"}\n', ("a.jsonl: line 1", "half of a surrogate pair")),
    "null": File("a.jsonl", b'{"text": null}\n', ("a.jsonl: line 1", "no field 'text'")),
    "no gzip": File("a.jsonl.gz", b'{"text": "a"}\n', ("a.jsonl.gz", "no gzip")),
    "half a gzip": File("a.jsonl.gz", gzip.compress(b'{"text": "a"}\n' * 9)[:-9], ("a.jsonl.gz", "no gzip")),
    "no text": File("a.jsonl", b'\n{"text": ""}\n', ("sources[0]", "no document in 1 files")),
    "an empty file": File("a.txt", b"", ("sources[0]", "no document in 1 files")),
    "a bomb": File("a.txt.gz", gzip.compress(bytes(3 << 20)), ("a.txt.gz", "times as many")),
    "control characters in a name": File("a\x1b[2J.jsonl", b"[]\n", ("a\\x1b[2J.jsonl", "one object")),
}


@pytest.mark.parametrize("file", FILES.values(), ids=FILES)
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_broken_file_is_refused(file: File, jobs: int, tmp_path: Path) -> None:
    if jobs == 2 and file.name.startswith("a.txt"):
        pytest.skip("one process reads the files")
    (tmp_path / file.name).write_bytes(file.content)
    corpus = write_spec(tmp_path, sources=[{"files": ["a*"]}])
    refused(lambda: prepare(corpus, tmp_path / "out", jobs=jobs), *file.words)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_long_line_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pairform.training.data.corpus.documents.LINE_BYTES", 40)
    corpus = write_corpus(tmp_path, ["short", "a" * 40])
    refused(lambda: prepare(corpus, tmp_path / "out"), "corpus.jsonl: line 2", "more than 40 bytes")


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_pipes_are_not_read(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    refused(lambda: prepare(write_spec(tmp_path, sources=[{"files": ["a*"]}]), tmp_path / "out"), name, "a named pipe")


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path, texts(10))

    def report(count: int, whole: int) -> None:
        if count:
            with (tmp_path / "corpus.jsonl").open("a") as file:
                file.write('{"text": "more"}\n')

    refused(lambda: prepare(corpus, tmp_path / "out", report=report), "corpus.jsonl", "another content")


def link_inside(out: Path) -> None:
    (out / ".preparing").mkdir()
    (out / ".preparing" / "progress.json").symlink_to("x")


FOREIGN: Mapping[str, Callable[[Path], object]] = {
    "a file": lambda out: (out / "notes.txt").write_text("mine"),
    "a folder": lambda out: (out / "000-train-00000.tokens").mkdir(),
    "a link": lambda out: (out / "000-train-00000.tokens").symlink_to("/etc/hostname"),
    "a link to a folder": lambda out: (out / ".preparing").symlink_to("/etc"),
    "a link in the partial folder": link_inside,
}


@pytest.mark.parametrize("put", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_with_something_else_is_left_alone(put: Callable[[Path], object], overwrite: bool, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path, texts(3))
    (tmp_path / "out").mkdir()
    put(tmp_path / "out")
    before = contents(tmp_path / "out")
    refused(lambda: prepare(corpus, tmp_path / "out", overwrite=overwrite), "out", "nothing else")
    assert contents(tmp_path / "out") == before


CHANGES: Mapping[str, Callable[[Path], object]] = {
    "other texts": lambda folder: write_corpus(folder, texts(20, seed=1)),
    "texts of the same sizes": lambda folder: write_corpus(folder, [text.replace("fox", "cat") for text in texts(20)]),
    "another weight": lambda folder: write_corpus(folder, texts(20), sources=[{"files": ["corpus.jsonl"], "weight": 2.0}]),
    "another tokenizer": lambda folder: word_tokenizer(folder / "words.json", ["the", "fox"]),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_complete_folder_of_another_corpus_is_left_alone(change: Callable[[Path], object], tmp_path: Path) -> None:
    word_tokenizer(tmp_path / "words.json")
    corpus = write_corpus(tmp_path, texts(20), tokenizer="words.json")
    prepare(corpus, tmp_path / "out")
    before = contents(tmp_path / "out")
    change(tmp_path)
    edit_json(corpus, lambda document: document.update(tokenizer="words.json"))
    refused(lambda: prepare(corpus, tmp_path / "out"), "a corpus of other files or settings", "--overwrite")
    assert contents(tmp_path / "out") == before


def test_a_full_disk_is_an_error_after_which_the_same_call_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = write_corpus(tmp_path, texts(200), shard_tokens=1000)
    wanted = prepare(corpus, tmp_path / "whole").digest
    room = 2000

    class Full(writing.OpenFile):
        def add(self, content: np.ndarray) -> None:
            nonlocal room
            room -= content.nbytes
            with files.writing(self.path):
                if room < 0:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            super().add(content)

    monkeypatch.setattr(writing, "OpenFile", Full)
    refused(lambda: prepare(corpus, tmp_path / "out"), "No space left on device")
    assert not (tmp_path / "out" / "manifest.json").exists()
    room = 1 << 30
    assert prepare(corpus, tmp_path / "out").digest == wanted


def test_a_disk_that_will_be_full_is_noticed_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "CHECKPOINT", 1000)
    monkeypatch.setattr("pairform.training.data.corpus.documents.BATCH", 500)
    monkeypatch.setattr("pairform.training.data.files.CHUNK", 512)
    corpus = write_corpus(tmp_path, texts(500))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=3000))
    refused(lambda: prepare(corpus, tmp_path / "out"), "3,000 bytes free", "for the rest of the corpus")


def test_data_files_keep_their_limit_of_a_packed_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A corpus may be larger than a study's data, but not a bomb."""
    monkeypatch.setattr(data_files, "DATA_BYTES", 10)
    assert prepare(write_corpus(tmp_path, texts(50)), tmp_path / "out").train[0].documents == 50
