"""The manifest of a shard folder: what the folder holds, and the digest that identifies it."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import Field, Strict

from pairform.registry import PositiveFloat, Problem, Spec, SpecError, read_json, shorten

MANIFEST = "manifest.json"
MANIFEST_BYTES = 64 << 20
"""Largest manifest that is read. One that names 100,000 source files has about 15 million bytes."""
TOKENIZER = "tokenizer.json"
"""The copy of the tokenizer's file in a shard folder."""
BYTES = "bytes"
"""The tokenizer whose tokens are the bytes of UTF-8."""
FORMAT: Literal[1] = 1

Split = Literal["train", "held_out"]
SPLITS: tuple[Split, ...] = ("train", "held_out")
TEXT = "text"
"""The only stream of a source of running text."""
PAIR = ("source", "target")
"""The two streams of a source of sequence pairs."""
Count = Annotated[int, Field(gt=0, lt=2**44)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class FileRecord(Spec):
    """A source file, as it was read. name: its path relative to the corpus's folder."""

    name: str
    bytes: Annotated[int, Field(ge=0, lt=2**60)]
    sha256: Sha256


class ShardRecord(Spec):
    """One shard of a stream: a file of tokens and a file of document ends.

    tokens, documents: their numbers in the shard.
    sha256:            of the two files.
    """

    tokens: Count
    documents: Count
    sha256: Annotated[tuple[Sha256, Sha256], Strict(False)]


Shards = Annotated[tuple[ShardRecord, ...], Strict(False)]


class SplitRecord(Spec):
    """A split of a source: the shards of its streams, which are `text`, or `source` and `target`."""

    text: Shards = ()
    source: Shards = ()
    target: Shards = ()

    def streams(self) -> dict[str, Shards]:
        return {name: getattr(self, name) for name in (TEXT, *PAIR)}


class SourceRecord(Spec):
    """A source of the corpus.

    kind:    `text`, or `pairs` for two streams of equally many documents.
    files:   the files that it was read from.
    dropped: documents without tokens, which are left out.
    """

    name: Name
    kind: Literal["text", "pairs"]
    weight: PositiveFloat
    files: Annotated[tuple[FileRecord, ...], Strict(False)]
    dropped: Annotated[int, Field(ge=0, lt=2**48)]
    train: SplitRecord
    held_out: SplitRecord

    @property
    def streams(self) -> tuple[str, ...]:
        return (TEXT,) if self.kind == "text" else PAIR

    def check(self) -> Iterator[Problem]:
        for split in SPLITS:
            shards = getattr(self, split).streams()
            for stream in set(shards) - set(self.streams):
                if shards[stream]:
                    yield Problem(f"{split}.{stream}", "shards", f"none in a source of kind {self.kind!r}")
            counts = {tuple(shard.documents for shard in shards[stream]) for stream in self.streams}
            if len(counts) > 1:
                yield Problem(split, "streams of unequal numbers of documents", "a target for each source")


class TokenizerRecord(Spec):
    """The tokenizer.

    name:          `bytes`, or `tokenizer.json` for the file in the folder, whose SHA-256 follows.
    vocabulary:    number of ids.
    chat_template: SHA-256 of the template that conversations were rendered with, and of its special tokens.
    """

    name: Literal["bytes", "tokenizer.json"]
    vocabulary: Annotated[int, Field(gt=0, lt=2**31)]
    sha256: Sha256 | None = None
    chat_template: Sha256 | None = None


class Manifest(Spec):
    """The contents of `manifest.json`. digest: of all the rest, and so of every file in the folder.

    corpus: the corpus document that the folder was prepared from.
    """

    format: Literal[1]
    corpus: dict[str, Any]
    tokenizer: TokenizerRecord
    sources: Annotated[tuple[SourceRecord, ...], Strict(False), Field(min_length=1)]
    digest: Sha256

    @property
    def dtype(self) -> np.dtype[Any]:
        return token_dtype(self.tokenizer.vocabulary)

    def check(self) -> Iterator[Problem]:
        document = self.document()
        found = document.pop("digest")
        if found != digest_of(document):
            yield Problem("digest", f"{found[:12]}…", f"{digest_of(document)[:12]}…, the digest of the manifest")
        if (self.tokenizer.name == BYTES) != (self.tokenizer.sha256 is None):
            yield Problem("tokenizer.sha256", "one too many or none", "one for a tokenizer's file only")
        for index, source in enumerate(self.sources):
            yield from (problem.inside(f"sources[{index}]") for problem in source.check())

    def shards(self) -> Iterator[tuple["ShardName", ShardRecord]]:
        """Every shard with its name."""
        for index, source in enumerate(self.sources):
            for split in SPLITS:
                for stream, shards in getattr(source, split).streams().items():
                    for number, shard in enumerate(shards):
                        yield ShardName(index, split, stream, number), shard


class ShardName(NamedTuple):
    """Names of a shard's files. They follow from its place, so that a manifest cannot name files elsewhere."""

    source: int
    split: Split
    stream: str
    number: int

    def __str__(self) -> str:
        stream = "" if self.stream == TEXT else f"-{self.stream}"
        return f"{self.source:03d}-{self.split}{stream}-{self.number:05d}"

    @property
    def tokens(self) -> str:
        return f"{self}.tokens"

    @property
    def documents(self) -> str:
        return f"{self}.documents"


def token_dtype(vocabulary: int) -> np.dtype[Any]:
    """The smallest unsigned little-endian integers that hold a vocabulary's ids."""
    return np.dtype("u1" if vocabulary <= 1 << 8 else "<u2" if vocabulary <= 1 << 16 else "<u4")


def digest_of(document: dict[str, Any]) -> str:
    """SHA-256 of a document's canonical JSON."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a shard folder; `SpecError` if it is missing, invalid or not consistent."""
    file = folder / MANIFEST
    if not folder.is_dir():
        found = "a file" if folder.exists() else "no such folder"
        raise SpecError(Problem(str(folder), found, "a folder made by `pairform data prepare`"))
    if not file.exists():
        remedy = "If a preparation was interrupted, run the same `pairform data prepare` again."
        raise SpecError(Problem(str(folder), f"no {MANIFEST}", "a finished shard folder", remedy))
    document = read_json(file, MANIFEST_BYTES)
    if document.get("format") != FORMAT:
        found = f"format {shorten(document['format'])}" if "format" in document else "no format"
        raise SpecError(Problem(str(file), found, f"a manifest of format {FORMAT}", "Prepare the corpus again."))
    manifest = Manifest.read(document, where=str(file))
    if problems := [problem.inside(str(file)) for problem in manifest.check()]:
        raise SpecError(problems)
    return manifest
