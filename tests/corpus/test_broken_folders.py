"""Broken shard folders: each is refused with an error that says what is wrong."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from pairform.training.data.corpus.manifest import digest_of
from pairform.training.data.corpus.prepare import prepare
from pairform.training.data.corpus.shards import Shards
from tests.broken.damage import edit_json, refused
from tests.corpus.small import texts, word_tokenizer, write_corpus


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    word_tokenizer(tmp_path / "words.json")
    out = tmp_path / "out"
    sources = [{"files": ["corpus.jsonl"]}, {"files": ["corpus.jsonl"], "source": "text", "target": "text", "name": "pairs"}]
    prepare(write_corpus(tmp_path, texts(50), tokenizer="words.json", sources=sources, shard_tokens=100), out)
    return out


def lie(edit: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """A change of the manifest with a digest that fits."""

    def change(folder: Path) -> None:
        def edit_both(document: dict[str, Any]) -> None:
            edit(document)
            del document["digest"]
            document["digest"] = digest_of(document)

        edit_json(folder / "manifest.json", edit_both)

    return change


def truncate(name: str, size: int) -> Callable[[Path], None]:
    return lambda folder: os.truncate(folder / name, size)


def to_link(folder: Path) -> None:
    (folder / "000-train-00000.tokens").rename(folder.parent / "elsewhere")
    (folder / "000-train-00000.tokens").symlink_to("../elsewhere")


def shard_of(document: dict[str, Any], number: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = document["sources"][0]["train"]["text"][number]
    return found


FOLDERS: Mapping[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "no manifest": (lambda out: (out / "manifest.json").unlink(), ("no manifest.json", "interrupted")),
    "no JSON": (lambda out: (out / "manifest.json").write_text("{"), ("manifest.json", "syntax error")),
    "another format": (lie(lambda document: document.update(format=2)), ("format 2",)),
    "a changed digest": (
        lambda out: edit_json(out / "manifest.json", lambda document: document.update(digest="0" * 64)),
        ("manifest.json.digest", "000000000000"),
    ),
    "a changed weight": (
        lambda out: edit_json(out / "manifest.json", lambda document: document["sources"][0].update(weight=5.0)),
        ("manifest.json.digest", "the digest of the manifest"),
    ),
    "an unknown field": (lie(lambda document: document.update(files=[])), ("manifest.json.files", "an unknown field")),
    "a missing shard": (lambda out: (out / "000-train-00001.tokens").unlink(), ("000-train-00001.tokens", "no such file")),
    "a truncated shard": (truncate("000-train-00000.tokens", 7), ("000-train-00000.tokens", "7 bytes", "as the manifest says")),
    "truncated document ends": (truncate("000-train-00000.documents", 8), ("000-train-00000.documents", "8 bytes")),
    "too many tokens": (
        lie(lambda document: shard_of(document).update(tokens=10**9)),
        ("000-train-00000.tokens", "1,000,000,000"),
    ),
    "more tokens than a disk": (lie(lambda document: shard_of(document).update(tokens=2**60)), ("tokens", "less than")),
    "no tokens": (lie(lambda document: shard_of(document).update(tokens=0)), ("tokens", "greater than 0")),
    "one target too few": (
        lie(lambda document: document["sources"][1]["train"]["target"].pop()),
        ("sources[1].train", "a target for each source"),
    ),
    "a link": (to_link, ("000-train-00000.tokens", "a link")),
    "another tokenizer": (
        lambda out: word_tokenizer(out / "tokenizer.json", ["other"]),
        ("tokenizer.json", "the tokenizer that the corpus was prepared with"),
    ),
    "no tokenizer": (lambda out: (out / "tokenizer.json").unlink(), ("tokenizer.json", "no such file")),
}


@pytest.mark.parametrize(("damage", "words"), FOLDERS.values(), ids=FOLDERS)
def test_a_broken_folder_is_not_opened(damage: Callable[[Path], object], words: tuple[str, ...], prepared: Path) -> None:
    damage(prepared)
    refused(lambda: Shards.open(prepared), *words)


def overwrite(file: Path, begin: int, content: bytes) -> None:
    """Other bytes in a file of the same length."""
    whole = bytearray(file.read_bytes())
    whole[begin : begin + len(content)] = content
    file.write_bytes(whole)


CONTENTS: Mapping[str, tuple[str, bytes, tuple[str, ...]]] = {
    "an id beyond the vocabulary": ("000-train-00000.tokens", b"\xff", ("000-train-00000.tokens", "ids below 13")),
    "ends that descend": ("000-train-00000.documents", b"\xff\xff", ("000-train-00000.documents", "ascending")),
    "ends at zero": ("000-train-00000.documents", bytes(8), ("000-train-00000.documents", "ascending")),
}


@pytest.mark.parametrize(("name", "content", "words"), CONTENTS.values(), ids=CONTENTS)
def test_damaged_contents_are_noticed_when_they_are_read(
    name: str, content: bytes, words: tuple[str, ...], prepared: Path
) -> None:
    """Without a read outside the file; and `verify` finds them in any case."""
    overwrite(prepared / name, 0, content)
    shards = Shards.open(prepared)
    (stream,) = shards.train
    refused(lambda: stream.fragments(0, stream.length), *words)
    refused(shards.verify, name, "SHA-256")


def test_a_manifest_with_fitting_digests_does_not_hide_wrong_ids(prepared: Path) -> None:
    overwrite(prepared / "000-train-00000.tokens", 0, b"\xff")
    digest = hashlib.sha256((prepared / "000-train-00000.tokens").read_bytes()).hexdigest()
    lie(lambda document: shard_of(document)["sha256"].__setitem__(0, digest))(prepared)
    refused(Shards.open(prepared).verify, "000-train-00000.tokens", "the id 255")


def test_a_manifest_is_read_within_a_limit(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pairform.training.data.corpus.manifest.MANIFEST_BYTES", 100)
    refused(lambda: Shards.open(prepared), "manifest.json", "more than the limit of 100")


def test_names_in_a_manifest_are_escaped(prepared: Path) -> None:
    """They are a stranger's; none of them is a path that is opened."""
    lie(lambda document: document["sources"][0].update(name="\x1b[2J", kind="texts"))(prepared)
    assert "\x1b" not in refused(lambda: Shards.open(prepared), "kind")
    assert json.loads((prepared / "manifest.json").read_text())["sources"][0]["name"] == "\x1b[2J"
