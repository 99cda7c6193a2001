"""Reading the files of a corpus in order: items, which are lines, rows and pieces of text, and batches of them."""

import bisect
import codecs
import hashlib
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from pairform.registry import Problem, SpecError
from pairform.training.data.corpus.manifest import FileRecord
from pairform.training.data.corpus.parquet import PARQUET, rows
from pairform.training.data.corpus.progress import changed
from pairform.training.data.corpus.shard import sha256_of
from pairform.training.data.corpus.spec import SourceSpec
from pairform.training.data.files import CHUNK, LINE_BYTES, Allowance, DataStream, is_jsonl, open_data

BATCH = 1 << 20
"""A batch ends with the item that brings it to this many bytes."""
PIECE = 1 << 20
"""Characters of the pieces in which a longer text is tokenised."""
Item = bytes | str
"""A line or row, as a JSON object; or a piece of text."""


class Mark(NamedTuple):
    """A place between two items of a source.

    file:  number of the file that is being read.
    item:  number of items of that file before the place.
    crc:   checksum of those items.
    total: number of items of the source before the place.
    """

    file: int = 0
    item: int = 0
    crc: int = 0
    total: int = 0


@dataclass
class Batch:
    """Consecutive items of a source.

    first: index of the first item in the source.
    runs:  for each file in the batch: the position of its first item here, its path, and that item's number in the file.
    more:  whether the last item's document continues in the next batch.
    """

    source: int
    first: int
    items: list[Item] = field(default_factory=list)
    runs: list[tuple[int, str, int]] = field(default_factory=list)
    more: bool = False

    def place(self, position: int) -> str:
        """Where the item at a position of the batch is, as errors name it."""
        begin, file, number = self.runs[bisect.bisect_right(self.runs, position, key=lambda run: run[0]) - 1]
        kind = "row" if file.endswith(PARQUET) else "line"
        text = isinstance(self.items[position], str)
        return file if text else f"{file}: {kind} {number + position - begin + 1}"


class SourceReader:
    """Reads a source's files from a place on.

    records: of the files that have been read to their end.
    move:    called with the number of bytes of the files that were read.
    """

    def __init__(
        self,
        index: int,
        source: SourceSpec,
        files: Sequence[tuple[str, Path]],
        start: Mark,
        records: Sequence[FileRecord],
        move: Callable[[int], object],
    ) -> None:
        self.index, self.source, self.files, self.start, self.move = index, source, files, start, move
        self.records = list(records)

    def batches(self) -> Iterator[tuple[Batch, Mark]]:
        """Batches, each with the place after it."""
        index = self.start.total
        batch, size = Batch(self.index, index), 0
        mark = self.start
        for number in range(self.start.file, len(self.files)):
            name, file = self.files[number]
            skipped = self.start.item if number == self.start.file else 0
            item = crc = 0
            for content, more in self.items(name, file):
                raw = content if isinstance(content, bytes) else content.encode()
                item, crc = item + 1, zlib.crc32(raw, crc)
                if item <= skipped:
                    if item == skipped and crc != self.start.crc:
                        raise changed(file)
                    continue
                if not batch.items or batch.runs[-1][1] != str(file):
                    batch.runs.append((len(batch.items), str(file), item - 1))
                batch.items.append(content)
                index, size = index + 1, size + len(raw)
                mark = Mark(number, item, crc, index)
                if size >= BATCH or more:
                    batch.more = more
                    yield batch, mark
                    batch, size = Batch(self.index, index), 0
            if item < skipped:
                raise changed(file)
            mark = Mark(number + 1, total=index)
        if batch.items:
            yield batch, mark

    def items(self, name: str, file: Path) -> Iterator[tuple[Item, bool]]:
        """The items of a file, each with whether its document continues in the next one; then the file's record is complete."""
        if file.suffix == PARQUET:
            digest, size = sha256_of(file), file.stat().st_size
            yield from ((row, False) for row in rows(file, self.source.fields, self.move))
        else:
            found, size = hashlib.sha256(), 0

            def watch(content: memoryview) -> None:
                nonlocal size
                found.update(content)
                size += len(content)
                self.move(len(content))

            with open_data(file, Allowance(sys.maxsize), watch) as stream:
                yield from lines(file, stream) if is_jsonl(file) else pieces(file, stream)
                if size != stream.size:
                    raise changed(file)
            digest = found.hexdigest()
        self.records.append(FileRecord(name=name, bytes=size, sha256=digest))


def lines(file: Path, stream: DataStream) -> Iterator[tuple[bytes, bool]]:
    number = 0
    while line := stream.readline(LINE_BYTES + 1):
        number += 1
        if len(line) > LINE_BYTES:
            raise SpecError(Problem(f"{file}: line {number}", f"more than {LINE_BYTES:,} bytes", "a shorter line"))
        yield line, False


def pieces(file: Path, stream: DataStream) -> Iterator[tuple[str, bool]]:
    """A text in pieces, so that it may be longer than memory."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    held = ""
    try:
        while chunk := stream.read(CHUNK):
            held += decoder.decode(chunk)
            while len(held) > PIECE:
                cut = cutting_place(held)
                yield held[:cut], True
                held = held[cut:]
        yield held + decoder.decode(b"", final=True), False
    except UnicodeDecodeError as error:
        raise SpecError(Problem(str(file), f"no UTF-8: {error.reason}", "text in UTF-8")) from None


def cut(text: str) -> list[str]:
    """A text in the pieces in which it is tokenised: the memory that tokenisers need grows with the length."""
    found = []
    while len(text) > PIECE:
        place = cutting_place(text)
        found.append(text[:place])
        text = text[place:]
    return [*found, text]


def cutting_place(text: str) -> int:
    """Where to cut a text longer than a piece: behind a line, before a space, or else after `PIECE` characters."""
    line = text.rfind("\n", PIECE // 2, PIECE)
    if line >= 0:
        return line + 1
    space = text.rfind(" ", PIECE // 2, PIECE)
    return space if space >= 0 else PIECE


def stamp(file: Path) -> tuple[int, int, int]:
    """Size in bytes, and times of the last changes of the content and of the file, in nanoseconds."""
    try:
        found = file.stat()
    except OSError as error:
        raise SpecError(Problem(str(file), error.strerror or str(error), "a regular file that can be read")) from None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns
