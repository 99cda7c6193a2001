"""One shard of a shard folder: a file of tokens and a file of document ends, memory-mapped."""

import functools
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pairform.registry import Problem, SpecError, open_regular
from pairform.training.data.corpus.manifest import ShardName, ShardRecord

ENDS = np.dtype("<u8")
"""A document's end: the number of stream tokens of the shard up to and including its end token."""
CHUNK = 1 << 20


class Fragment(NamedTuple):
    """The part of a document that is in a window.

    tokens:       ids, int32 [count], without the end token; empty where the window holds nothing else of the document.
    starts, ends: whether the document begins and ends in the window, its end token included.
    """

    tokens: np.ndarray
    starts: bool
    ends: bool


class Shard:
    """One shard of a stream, mapped when it is first read."""

    def __init__(self, folder: Path, name: ShardName, record: ShardRecord, dtype: np.dtype[Any], vocabulary: int) -> None:
        self.files = (folder / name.tokens, folder / name.documents)
        self.record = record
        self.types = (dtype, ENDS)
        self.vocabulary = vocabulary
        self.length = record.tokens + record.documents
        self.sizes = (record.tokens * dtype.itemsize, record.documents * ENDS.itemsize)

    def check(self) -> Iterator[Problem]:
        """Files that are missing, links, or not as long as the manifest says."""
        for file, size in zip(self.files, self.sizes, strict=True):
            if problem := unlike(file, size):
                yield problem

    @functools.cached_property
    def mapped(self) -> tuple[np.ndarray, np.ndarray]:
        """The tokens and the documents' ends."""
        tokens, ends = (mapped(*each) for each in zip(self.files, self.sizes, self.types, strict=True))
        if int(ends[-1]) != self.length:
            raise self.damaged(1, f"{int(ends[-1]):,} stream tokens", f"{self.length:,}, as the manifest says")
        return tokens, ends

    def damaged(self, file: int, found: str, expected: str) -> SpecError:
        return SpecError(Problem(str(self.files[file]), found, expected, "Prepare the corpus again."))

    def document(self, index: int) -> tuple[int, int]:
        """The first stream token of a document, and the one behind its end token."""
        ends = self.mapped[1]
        begin, end = int(ends[index - 1]) if index else 0, int(ends[index])
        if not begin < end <= self.length:
            raise self.damaged(1, f"a document from {begin:,} to {end:,}", "ends in ascending order")
        return begin, end

    def tokens(self, begin: int, end: int, index: int) -> np.ndarray:
        """The stream tokens [begin, end) of document `index`, all before its end token."""
        found: np.ndarray = self.mapped[0][begin - index : end - index].astype(np.int32)
        if len(found) != end - begin or (len(found) and not 0 <= int(found.min()) <= int(found.max()) < self.vocabulary):
            raise self.damaged(0, "ids that the tokenizer does not have", f"ids below {self.vocabulary:,}")
        return found

    def fragments(self, begin: int, end: int) -> Iterator[Fragment]:
        index = int(np.searchsorted(self.mapped[1], begin, side="right"))
        while begin < end:
            first, behind = self.document(index)
            if not first <= begin < behind:
                raise self.damaged(1, f"no document at {begin:,}", "ends in ascending order")
            last = min(end, behind)
            yield Fragment(self.tokens(begin, min(last, behind - 1), index), begin == first, last == behind)
            begin, index = last, index + 1

    def verify(self) -> None:
        """Read everything, in pieces; `SpecError` where it differs from the manifest."""
        for number, (file, expected) in enumerate(zip(self.files, self.record.sha256, strict=True)):
            if (found := sha256_of(file)) != expected:
                raise self.damaged(number, f"SHA-256 {found[:12]}…", f"{expected[:12]}…, as the manifest says")
        tokens, ends = self.mapped
        for piece in pieces(tokens):
            if int(piece.max()) >= self.vocabulary:
                raise self.damaged(0, f"the id {int(piece.max()):,}", f"ids below {self.vocabulary:,}")
        before = 0
        for piece in pieces(ends):
            if int(piece[0]) <= before or not (piece[1:] > piece[:-1]).all():
                raise self.damaged(1, "ends that do not ascend", "ends in ascending order")
            before = int(piece[-1])


def unlike(file: Path, size: int | None) -> Problem | None:
    """What is wrong with a file of the folder. size: its bytes, if they are known."""
    if file.is_symlink():
        return Problem(str(file), "a link", "a file in the folder itself")
    try:
        with open_regular(file) as stream:
            found = os.fstat(stream.fileno()).st_size
    except OSError as error:
        missing = "no such file" if isinstance(error, FileNotFoundError) else error.strerror or str(error)
        return Problem(str(file), missing, "a file of the shard folder", "Copy the whole folder, or prepare the corpus again.")
    if size is None or found == size:
        return None
    return Problem(str(file), f"{found:,} bytes", f"{size:,}, as the manifest says", "Prepare the corpus again.")


def mapped(file: Path, size: int, dtype: np.dtype[Any]) -> np.ndarray:
    """A file of a known size, memory-mapped for reading."""
    try:
        with open_regular(file) as stream:
            if (found := os.fstat(stream.fileno()).st_size) != size:
                raise SpecError(Problem(str(file), f"{found:,} bytes", f"{size:,}, as the manifest says"))
            return np.asarray(np.memmap(stream, dtype, "r"))
    except OSError as error:
        raise SpecError(Problem(str(file), error.strerror or str(error), "a file that can be mapped")) from None


def sha256_of(file: Path) -> str:
    """SHA-256 of a file's bytes; `SpecError` if it cannot be read."""
    found = hashlib.sha256()
    try:
        with open_regular(file) as stream:
            while chunk := stream.read(CHUNK):
                found.update(chunk)
    except OSError as error:
        raise SpecError(Problem(str(file), error.strerror or str(error), "a regular file that can be read")) from None
    return found.hexdigest()


def pieces(array: np.ndarray) -> Iterator[np.ndarray]:
    return (array[begin : begin + CHUNK] for begin in range(0, len(array), CHUNK))
