"""Small corpora: files of every kind, and what is read from prepared folders."""

import gzip
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from pairform.training.data.corpus.shards import Fragment, Shards

WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog"]
SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>"]


def texts(count: int, seed: int = 0, longest: int = 12) -> list[str]:
    """Texts of a few words, none of them empty."""
    numbers = random.Random(seed)
    return [" ".join(numbers.choices(WORDS, k=numbers.randrange(1, longest))) for _ in range(count)]


def write_lines(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    file.write_bytes(gzip.compress(content, mtime=0) if file.suffix == ".gz" else content)


def write_corpus(folder: Path, rows: Sequence[str | Mapping[str, Any]], **corpus: Any) -> Path:
    """`corpus.jsonl` with texts or rows, and `corpus.json` with it as its only source unless `corpus` has `sources`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_lines(folder / "corpus.jsonl", [{"text": row} if isinstance(row, str) else row for row in rows])
    return write_spec(folder, **corpus)


def write_spec(folder: Path, **corpus: Any) -> Path:
    file = folder / "corpus.json"
    file.write_text(json.dumps({"sources": [{"files": ["corpus.jsonl"]}], "tokenizer": "bytes"} | corpus))
    return file


def word_tokenizer(file: Path, words: Sequence[str] = WORDS) -> Tokenizer:
    """One token a word, saved with a truncation that nobody may heed."""
    made = Tokenizer(models.WordLevel({word: index for index, word in enumerate([*SPECIAL, *words])}, "<unk>"))
    made.add_special_tokens(SPECIAL)
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.decoder = decoders.WordPiece()
    made.enable_truncation(3)
    made.save(str(file))
    return made


def documents(shards: Shards, split: str = "train") -> list[list[bytes]]:
    """Each stream's documents, of a corpus of bytes."""
    streams = getattr(shards, split)
    return [[bytes(found.tokens.astype("u1")) for found in stream.fragments(0, stream.length)] for stream in streams]


def joined(fragments: Sequence[Fragment], end: int = -1) -> list[int]:
    """The stream tokens of fragments, with `end` for each end token."""
    return [token for fragment in fragments for token in [*fragment.tokens.tolist(), *([end] if fragment.ends else [])]]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def pairs(shards: Shards) -> list[list[tuple[bytes, bytes]]]:
    """Each source's pairs, of a corpus of bytes."""

    def text(ids: np.ndarray) -> bytes:
        return bytes(ids.astype("u1"))

    return [
        [(text(source), text(target)) for source, target in map(stream.pair, range(stream.documents))]
        for stream in shards.train_pairs
    ]
