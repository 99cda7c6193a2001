"""Files that need a package which is not installed are refused with the extra that installs it."""

import sys
from pathlib import Path

import pytest

from pairform.training.data.corpus.prepare import prepare
from tests.broken.damage import refused
from tests.corpus.small import word_tokenizer, write_corpus, write_spec


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl.zst"])
def test_pyarrow_is_named_with_its_extra(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / name).write_bytes(b"x")
    corpus = write_spec(tmp_path, sources=[{"files": [name]}])
    refused(lambda: prepare(corpus, tmp_path / "out"), name, "`pyarrow` is not installed", "pip install 'pairform[adapt]'")


def test_tokenizers_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    word_tokenizer(tmp_path / "words.json")
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    corpus = write_corpus(tmp_path, ["a"], tokenizer="words.json")
    refused(lambda: prepare(corpus, tmp_path / "out"), "`tokenizers` is not installed")


def test_bytes_need_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tokenizers", "pyarrow", "jinja2"):
        monkeypatch.setitem(sys.modules, name, None)
    assert prepare(write_corpus(tmp_path, ["a"]), tmp_path / "out").train[0].documents == 1
