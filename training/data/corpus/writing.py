"""Writing the shards of a source."""

import contextlib
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pairform.registry import open_regular, writing
from pairform.training.data.corpus.encoding import Encoded
from pairform.training.data.corpus.manifest import (
    SPLITS,
    ShardName,
    ShardRecord,
    Split,
    SplitRecord,
)
from pairform.training.data.corpus.progress import SourceState, SplitState
from pairform.training.data.corpus.shard import CHUNK, ENDS


class OpenFile:
    """A file that grows, with the digest of its content. size: bytes that it has already; what follows them is removed."""

    def __init__(self, path: Path, size: int) -> None:
        self.path, self.digest = path, hashlib.sha256()
        with writing(path):
            if size:
                with open_regular(path) as written:
                    for begin in range(0, size, CHUNK):
                        self.digest.update(written.read(min(CHUNK, size - begin)))
            path.touch()
            self.file = path.open("r+b")
            self.file.truncate(size)
            self.file.seek(size)

    def add(self, content: np.ndarray) -> None:
        with writing(self.path):
            self.file.write(content.data)
        self.digest.update(content.data)

    def sync(self) -> None:
        """Wait until the content is on the disk."""
        with writing(self.path):
            self.file.flush()
            os.fsync(self.file.fileno())

    def close(self) -> None:
        with contextlib.suppress(OSError):  # of what an error has left unwritten: `sync` comes before a close that matters
            self.file.close()


class OpenShard:
    """The shard of a stream that is being written. tokens, documents: written so far."""

    def __init__(self, folder: Path, name: ShardName, dtype: np.dtype[Any], tokens: int, documents: int) -> None:
        self.tokens, self.documents, self.dtype = tokens, documents, dtype
        self.end = tokens + documents  # of the last document, in stream tokens
        self.files = (
            OpenFile(folder / name.tokens, tokens * dtype.itemsize),
            OpenFile(folder / name.documents, documents * ENDS.itemsize),
        )

    def add(self, tokens: np.ndarray, lengths: np.ndarray) -> None:
        """Add tokens, and the documents that end in them. lengths: of those documents, in tokens."""
        ends = self.end + np.cumsum(lengths + 1)
        self.files[0].add(np.ascontiguousarray(tokens, self.dtype))
        self.files[1].add(ends.astype(ENDS))
        self.tokens += len(tokens)
        self.documents += len(lengths)
        self.end = int(ends[-1]) if len(ends) else self.end

    def finish(self) -> ShardRecord | None:
        """Close the files. None, with the files removed, if there is no document."""
        for file in self.files:
            file.sync()
            file.close()
        if not self.documents:
            for file in self.files:
                file.path.unlink()
            return None
        tokens, documents = (file.digest.hexdigest() for file in self.files)
        return ShardRecord(tokens=self.tokens, documents=self.documents, sha256=(tokens, documents))


class SplitWriter:
    """Writes a split of a source. A shard ends with the document that brings a stream of it to `limit` tokens."""

    def __init__(
        self,
        folder: Path,
        source: int,
        split: Split,
        streams: Sequence[str],
        dtype: np.dtype[Any],
        limit: int,
        state: SplitState,
    ) -> None:
        self.folder, self.source, self.split, self.streams = folder, source, split, streams
        self.dtype, self.limit = dtype, limit
        self.finished = {stream: list(getattr(state.finished, stream)) for stream in streams}
        self.shards = [self.open(stream, *counts) for stream, counts in zip(streams, state.open, strict=False)]
        self.pending = [0 for _ in streams]  # tokens of the document that is not complete
        self.dropped = state.dropped

    def open(self, stream: str, tokens: int = 0, documents: int = 0) -> OpenShard:
        name = ShardName(self.source, self.split, stream, len(self.finished[stream]))
        return OpenShard(self.folder, name, self.dtype, tokens, documents)

    def add(self, tokens: Sequence[np.ndarray], lengths: Sequence[np.ndarray], more: bool) -> None:
        """Add documents. more: whether the last one continues in the next call."""
        whole = [counts.copy() for counts in lengths]
        for counts, pending in zip(whole, self.pending, strict=True):
            counts[0] += pending
        keep = np.logical_and.reduce([counts > 0 for counts in whole])
        keep[-1] |= more
        if not keep.all():
            self.dropped += int((~keep).sum())
            tokens = [ids[np.repeat(keep, counts)] for ids, counts in zip(tokens, lengths, strict=True)]
            lengths, whole = [counts[keep] for counts in lengths], [counts[keep] for counts in whole]
        count, complete = len(whole[0]), len(whole[0]) - more
        offsets = [np.cumsum([0, *counts]) for counts in lengths]
        begin = 0
        while begin < count:
            self.shards = self.shards or [self.open(stream) for stream in self.streams]
            end = max(begin + 1, min(self.last(begin, place) for place in zip(self.shards, offsets, strict=True)))
            full, end = end <= complete, min(end, count)
            for shard, ids, counts, place in zip(self.shards, tokens, whole, offsets, strict=True):
                shard.add(ids[place[begin] : place[end]], counts[begin : min(end, complete)])
            if full:
                self.finish()
            begin = end
        self.pending = [int(counts[-1]) if more else 0 for counts in whole]

    def last(self, begin: int, place: tuple[OpenShard, np.ndarray]) -> int:
        """The document behind the one that fills a shard."""
        shard, offsets = place
        return int(np.searchsorted(offsets, offsets[begin] + self.limit - shard.tokens))

    def finish(self) -> SplitRecord:
        """End the shard that is being written."""
        for stream, shard in zip(self.streams, self.shards, strict=False):
            if record := shard.finish():
                self.finished[stream].append(record)
        self.shards = []
        return self.record

    @property
    def record(self) -> SplitRecord:
        return SplitRecord(**{stream: tuple(records) for stream, records in self.finished.items()})

    def state(self) -> SplitState:
        """What is on the disk, once it is there. The last document must be complete."""
        assert not any(self.pending)
        for shard in self.shards:
            for file in shard.files:
                file.sync()
        counts = tuple((shard.tokens, shard.documents) for shard in self.shards)
        return SplitState(finished=self.record, open=counts, dropped=self.dropped)

    def close(self) -> None:
        for shard in self.shards:
            for file in shard.files:
                file.close()


class SourceWriter:
    """Writes a source: each of its documents goes to one of the splits."""

    def __init__(
        self,
        folder: Path,
        source: int,
        streams: Sequence[str],
        dtype: np.dtype[Any],
        limit: int,
        held_out: float,
        state: SourceState,
    ) -> None:
        self.source, self.held_out = source, held_out
        self.train, self.kept = (
            SplitWriter(folder, source, split, streams, dtype, limit, getattr(state, split)) for split in SPLITS
        )
        self.continuing: bool | None = None  # whether the document that is not complete is held out

    @property
    def splits(self) -> tuple[SplitWriter, SplitWriter]:
        return self.train, self.kept

    def add(self, encoded: Encoded) -> None:
        if not len(encoded.items):
            return
        held = held_out(self.source, encoded.items, self.held_out)
        if self.continuing is not None:
            held[0] = self.continuing
        for split, chosen in zip(self.splits, (~held, held), strict=True):
            if chosen.all():
                split.add(encoded.tokens, encoded.lengths, encoded.more)
            elif chosen.any():
                tokens = [ids[np.repeat(chosen, counts)] for ids, counts in zip(encoded.tokens, encoded.lengths, strict=True)]
                split.add(tokens, [counts[chosen] for counts in encoded.lengths], encoded.more and bool(chosen[-1]))
        self.continuing = bool(held[-1]) if encoded.more else None

    def close(self) -> None:
        for split in self.splits:
            split.close()


def held_out(source: int, items: np.ndarray, share: float) -> np.ndarray:
    """Which items are held out, bool [items]: by a hash (SplitMix64) of the source's number and the item's index."""
    if not share:
        return np.zeros(len(items), bool)
    state = items.astype(np.uint64) + np.uint64((source + 1) << 48)
    state = (state + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        state = (state ^ (state >> np.uint64(shift))) * np.uint64(factor)
    state ^= state >> np.uint64(31)
    found: np.ndarray = (state >> np.uint64(11)).astype(np.float64) * 2.0**-53 < share
    return found
