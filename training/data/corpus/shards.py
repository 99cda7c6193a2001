"""Reading a shard folder: streams of tokens, and the documents in them."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from pairform.registry import Problem, SpecError
from pairform.training.data.corpus.manifest import BYTES, PAIR, SPLITS, TEXT, TOKENIZER, Manifest, Split, read_manifest
from pairform.training.data.corpus.shard import Fragment as Fragment
from pairform.training.data.corpus.shard import Shard, sha256_of, unlike


class Parts:
    """The shards of one stream as one sequence."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self.shards = shards
        self.positions = np.cumsum([0, *(shard.length for shard in shards)])
        self.numbers = np.cumsum([0, *(shard.record.documents for shard in shards)])

    def fragments(self, begin: int, end: int) -> Iterator[Fragment]:
        part = int(np.searchsorted(self.positions, begin, side="right")) - 1
        while begin < end:
            offset, behind = int(self.positions[part]), int(self.positions[part + 1])
            last = min(end, behind)
            yield from self.shards[part].fragments(begin - offset, last - offset)
            begin, part = last, part + 1

    def document(self, index: int) -> np.ndarray:
        part = int(np.searchsorted(self.numbers, index, side="right")) - 1
        shard, inner = self.shards[part], index - int(self.numbers[part])
        begin, behind = shard.document(inner)
        return shard.tokens(begin, behind - 1, inner)


class Stream:
    """A split of a source of running text: its documents one after another, each followed by an end token.

    The end token is virtual: it has a place in the stream, but no id in the file.

    name, weight: of the source.
    length:       stream tokens, end tokens included.
    documents:    number of documents.
    """

    def __init__(self, name: str, weight: float, parts: Parts) -> None:
        self.name, self.weight, self.parts = name, weight, parts
        self.length = int(parts.positions[-1])
        self.documents = int(parts.numbers[-1])

    def fragments(self, begin: int, end: int) -> list[Fragment]:
        """The documents in a window [begin, end) of stream tokens, in order.

        The fragments' tokens and the ends among them add up to `end - begin`.

        Raises:
            SpecError: a file contradicts the manifest.
            IndexError: the window is not in the stream.
        """
        if not 0 <= begin <= end <= self.length:
            raise IndexError(f"[{begin}, {end}) of a stream of {self.length}")
        return list(self.parts.fragments(begin, end))


class PairStream:
    """A split of a source of sequence pairs.

    name, weight: of the source.
    documents:    number of pairs.
    """

    def __init__(self, name: str, weight: float, source: Parts, target: Parts) -> None:
        self.name, self.weight = name, weight
        self.parts = (source, target)
        self.documents = int(source.numbers[-1])

    def pair(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Token ids of a source and of its target, int32, without end tokens. Errors as in `Stream.fragments`."""
        if not 0 <= index < self.documents:
            raise IndexError(f"pair {index} of {self.documents}")
        source, target = self.parts
        return source.document(index), target.document(index)


class Shards:
    """A shard folder.

    train, held_out:             the streams of running text.
    train_pairs, held_out_pairs: those of sequence pairs. A source without documents in a split has none there.
    tokenizer:                   the tokenizer's file in the folder; None: tokens are bytes.
    vocabulary:                  number of token ids.
    digest:                      identifies the folder's contents.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest, self.digest = folder, manifest, manifest.digest
        self.vocabulary = manifest.tokenizer.vocabulary
        self.tokenizer = None if manifest.tokenizer.name == BYTES else folder / TOKENIZER
        self.shards = {name: Shard(folder, name, record, manifest.dtype, self.vocabulary) for name, record in manifest.shards()}
        self.train, self.held_out = (self.streams(split) for split in SPLITS)
        self.train_pairs, self.held_out_pairs = (self.pairs(split) for split in SPLITS)

    @classmethod
    def open(cls, folder: str | Path) -> "Shards":
        """Open a folder made by `pairform data prepare`.

        Returns:
            The corpus, whose shards are read as memory maps.

        Raises:
            SpecError: the manifest is missing or invalid; a file is missing, a link, or not as long as the manifest says; the
                tokenizer is another one.
        """
        shards = cls(Path(folder), read_manifest(Path(folder)))
        problems = [problem for shard in shards.shards.values() for problem in shard.check()]
        if not problems and shards.tokenizer is not None:
            expected = shards.manifest.tokenizer.sha256 or ""
            problems = [problem] if (problem := unlike(shards.tokenizer, None)) else []
            if not problems and (found := sha256_of(shards.tokenizer)) != expected:
                wanted = f"{expected[:12]}…, the tokenizer that the corpus was prepared with"
                problems = [Problem(str(shards.tokenizer), f"SHA-256 {found[:12]}…", wanted)]
        if problems:
            raise SpecError(problems)
        return shards

    def verify(self) -> None:
        """Compare every file with its SHA-256, and check its contents; `SpecError` for the first that differs."""
        for shard in self.shards.values():
            shard.verify()

    def parts(self, source: int, split: Split, stream: str) -> Parts:
        """What the shards of a source's split hold of a stream of tokens."""
        wanted = (source, split, stream)
        return Parts([shard for name, shard in self.shards.items() if name[:3] == wanted])

    def streams(self, split: Split) -> list[Stream]:
        """The sources of running text that have documents in the split."""
        sources = enumerate(self.manifest.sources)
        found = [
            Stream(record.name, record.weight, self.parts(index, split, TEXT))
            for index, record in sources
            if record.kind == "text"
        ]
        return [stream for stream in found if stream.documents]

    def pairs(self, split: Split) -> list[PairStream]:
        """The sources of pairs that have some in the split."""
        sources = enumerate(self.manifest.sources)
        found = [
            PairStream(record.name, record.weight, *(self.parts(index, split, stream) for stream in PAIR))
            for index, record in sources
            if record.kind == "pairs"
        ]
        return [stream for stream in found if stream.documents]
