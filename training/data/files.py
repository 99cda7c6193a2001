"""Reading data files: texts, and JSONL with one object per line.

Only regular files are read, within limits on their decompressed size.
"""

import contextlib
import io
import json
import os
import zlib
from collections.abc import Callable, Iterator
from gzip import GzipFile
from pathlib import Path
from typing import Any, BinaryIO

from pairform.registry import Problem, SpecError, not_installed, open_regular, shorten

GZIP, ZSTD = ".gz", ".zst"
PACKED = {GZIP: "gzip", ZSTD: "Zstandard"}
"""Formats of compressed files, by the end of their names."""
DATA_BYTES = 1 << 30
"""Limit of all files of a study together, decompressed."""
RATIO, SMALL = 100, 1 << 20
"""A file may decompress to this many times its size, or to this many bytes. Text seldom reaches a ratio of ten."""
CHUNK = 1 << 20
JSONL = ".jsonl"
LINE_BYTES = 16 << 20
MOST_LINES = 1 << 22
"""Limit per file: each line takes a few hundred bytes of memory in addition to its text."""


class Allowance:
    """Bytes that may still be read of a study's data."""

    def __init__(self, left: int = DATA_BYTES) -> None:
        self.left = left

    def take(self, count: int, file: Path) -> None:
        self.left -= count
        if self.left < 0:
            raise SpecError(
                Problem(str(file), f"data of more than {DATA_BYTES:,} bytes up to here", "less", "Name fewer files.")
            )


class Watched(io.RawIOBase):
    """A file whose bytes are also given to `watch`, in order, as they are read."""

    def __init__(self, stream: BinaryIO, watch: Callable[[memoryview], object]) -> None:
        self.stream, self.watch = stream, watch

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count: int = self.stream.readinto(buffer)  # type: ignore[attr-defined]
        self.watch(memoryview(buffer)[:count])
        return count


class DataStream:
    """A file's content, decompressed if its name ends in `.gz` or `.zst`. Bytes read are taken from an allowance."""

    def __init__(
        self, file: Path, stream: BinaryIO, allowance: Allowance, watch: Callable[[memoryview], object] | None = None
    ) -> None:
        self.file, self.allowance = file, allowance
        self.size = os.fstat(stream.fileno()).st_size
        self.stream = unpacked(file, io.BufferedReader(Watched(stream, watch), CHUNK) if watch else stream)
        self.count = 0

    def read(self, size: int) -> bytes:
        return self.counted(self.stream.read(size))

    def readline(self, size: int) -> bytes:
        return self.counted(self.stream.readline(size))

    def counted(self, content: bytes) -> bytes:
        self.count += len(content)
        if self.file.suffix in PACKED and self.count > max(RATIO * self.size, SMALL):
            found = f"{self.size:,} bytes that unpack to more than {RATIO} times as many"
            raise SpecError(Problem(str(self.file), found, "text, which compresses less"))
        self.allowance.take(len(content), self.file)
        return content


def unpacked(file: Path, stream: BinaryIO) -> BinaryIO:
    """The decompressed content of a file."""
    if file.suffix == GZIP:
        return GzipFile(fileobj=stream)  # type: ignore[return-value]
    if file.suffix == ZSTD:
        try:
            import pyarrow
        except ModuleNotFoundError:
            raise SpecError(not_installed(str(file), "pyarrow", "adapt")) from None
        return io.BufferedReader(pyarrow.CompressedInputStream(pyarrow.PythonFile(stream, "r"), "zstd"), CHUNK)
    return stream


@contextlib.contextmanager
def open_data(file: Path, allowance: Allowance, watch: Callable[[memoryview], object] | None = None) -> Iterator[DataStream]:
    """Open a file for reading; `SpecError` if it cannot be read or decompressed. watch: gets the bytes of the file."""
    try:
        with open_regular(file) as stream:
            yield DataStream(file, stream, allowance, watch)
    except (EOFError, zlib.error) as error:
        raise SpecError(Problem(str(file), f"no gzip: {error}", "a gzip file")) from None
    except OSError as error:
        kind = PACKED.get(file.suffix)
        found = error.strerror or (f"no {kind}: {error}" if kind else str(error))
        expected = "a regular file, in gzip format if its name ends in .gz and in Zstandard format if in .zst"
        raise SpecError(Problem(str(file), found, expected)) from None


def read_text(file: Path, allowance: Allowance) -> str:
    """The text of a file; `SpecError` if it is blank."""
    with open_data(file, allowance) as stream:
        content = b"".join(iter(lambda: stream.read(CHUNK), b""))
    text = decoded(content, str(file))
    if not text or text.isspace():
        raise SpecError(Problem(str(file), "an empty file", "text"))
    return text


def decoded(content: bytes, where: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SpecError(Problem(where, f"no UTF-8: {error}", "text in UTF-8")) from None


def is_jsonl(file: Path) -> bool:
    return Path(file.stem if file.suffix in PACKED else file.name).suffix == JSONL


def read_lines(file: Path, allowance: Allowance | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each line's object with its place, as errors name it. Blank lines are skipped; `SpecError` if there are no others."""
    number, empty = 0, True
    with open_data(file, allowance or Allowance()) as stream:
        while line := stream.readline(LINE_BYTES + 1):
            number += 1
            where = f"{file}: line {number}"
            if len(line) > LINE_BYTES:
                raise SpecError(Problem(where, f"more than {LINE_BYTES:,} bytes", "a shorter line"))
            if number > MOST_LINES:
                raise SpecError(Problem(where, f"more than {MOST_LINES:,} lines", "fewer", "Split the file."))
            if line.strip():
                empty = False
                yield where, read_object(decoded(line, where), where)
    if empty:
        raise SpecError(Problem(str(file), "an empty file", "text"))


def read_object(line: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise SpecError(Problem(where, f"no JSON: {error}", "one object")) from None
    if not isinstance(value, dict):
        raise SpecError(Problem(where, type(value).__name__, "one object"))
    return value


def text_at(where: str, line: dict[str, Any], name: str) -> str:
    """The text in a field of a line."""
    value = line.get(name)
    if not isinstance(value, str):
        found = f"no field {name!r}" if value is None else f"{type(value).__name__} in the field {name!r}"
        names = ", ".join(shorten(key, 40) for key in list(line)[:20])
        raise SpecError(Problem(where, found, f"a text in {name!r}: the line has {names or 'no field'}"))
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        found = f"half of a surrogate pair, {value[error.start : error.end]!r}, in the field {name!r}"
        raise SpecError(Problem(where, found, "text that UTF-8 can write")) from None
    return value
