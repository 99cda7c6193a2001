"""Files as data: which ones patterns name, what they hold, and a digest by which a later run knows them again.

Only regular files are read, with bounds on what they may unpack to, so that no file takes more memory than it may.
"""

import contextlib
import hashlib
import itertools
import os
import zlib
from collections.abc import Iterator, Sequence
from gzip import GzipFile
from pathlib import Path
from typing import Annotated, BinaryIO

from pydantic import Field, Strict

from pairform.registry import Problem, SpecError, open_regular

Globs = Annotated[tuple[str, ...], Strict(False), Field(min_length=1)]
"""Patterns such as `docs/*.md`, from the study's folder on."""
GZIP = ".gz"
DATA_BYTES = 1 << 30
"""All files of a study together, unpacked."""
RATIO, SMALL = 100, 1 << 20
"""A packed file may unpack to so many times its size, and to so many bytes in any case. Text seldom reaches a tenth of that."""
MOST_FILES = 10_000
CHUNK = 1 << 20


class Allowance:
    """How many bytes a study's data may still hold."""

    def __init__(self, left: int = DATA_BYTES) -> None:
        self.left = left

    def take(self, count: int, file: Path) -> None:
        self.left -= count
        if self.left < 0:
            raise SpecError(
                Problem(str(file), f"data of more than {DATA_BYTES:,} bytes up to here", "less", "Name fewer files.")
            )


class Unpacked:
    """A file's content as a stream, unpacked if its name ends in `.gz`; each byte is taken from an allowance."""

    def __init__(self, file: Path, stream: BinaryIO, allowance: Allowance) -> None:
        self.file, self.allowance = file, allowance
        self.packed = os.fstat(stream.fileno()).st_size
        self.stream = GzipFile(fileobj=stream) if file.suffix == GZIP else stream
        self.count = 0

    def read(self, size: int) -> bytes:
        return self.counted(self.stream.read(size))

    def readline(self, size: int) -> bytes:
        return self.counted(self.stream.readline(size))

    def counted(self, content: bytes) -> bytes:
        self.count += len(content)
        if self.file.suffix == GZIP and self.count > max(RATIO * self.packed, SMALL):
            found = f"{self.packed:,} bytes that unpack to more than {RATIO} times as many"
            raise SpecError(Problem(str(self.file), found, "text, which packs less"))
        self.allowance.take(len(content), self.file)
        return content


@contextlib.contextmanager
def opened(file: Path, allowance: Allowance) -> Iterator[Unpacked]:
    """A file to read from; one that cannot be read or unpacked raises `SpecError`."""
    try:
        with open_regular(file) as stream:
            yield Unpacked(file, stream, allowance)
    except (EOFError, zlib.error) as error:
        raise SpecError(Problem(str(file), f"no gzip: {error}", "a file as gzip writes it")) from None
    except OSError as error:
        found = error.strerror or f"no gzip: {error}"
        raise SpecError(Problem(str(file), found, "a regular file, as gzip writes it where it ends in .gz")) from None


def find_files(folder: Path, patterns: Sequence[str], where: str) -> list[Path]:
    """Regular files by name; a pattern that none has is an error."""
    found: set[Path] = set()
    for pattern in patterns:
        try:
            some = [file for file in itertools.islice(folder.glob(pattern), MOST_FILES + 1) if not file.is_dir()]
        except (ValueError, NotImplementedError, OSError, RecursionError) as error:
            raise SpecError(Problem(where, f"{pattern!r}: {error}", "a pattern from the study's folder on")) from None
        if not some:
            raise SpecError(Problem(where, f"no file {pattern!r} in {folder.absolute()}", "at least one"))
        found.update(file.resolve() for file in some)
    if len(found) > MOST_FILES:
        raise SpecError(Problem(where, f"more than {MOST_FILES:,} files", "fewer", "Put several texts into one .jsonl file."))
    return sorted(found)


def digests(folder: Path, files: Sequence[Path]) -> dict[str, str]:
    """The SHA-256 of each file's bytes, by its path from `folder` on. Files larger than all data may be raise `SpecError`."""
    paths = {Path(os.path.relpath(file.resolve(), folder.resolve())).as_posix(): file for file in files}
    allowance = Allowance()
    return {name: digest(paths[name], allowance) for name in sorted(paths)}


def digest(file: Path, allowance: Allowance) -> str:
    found = hashlib.sha256()
    try:
        with open_regular(file) as stream:
            while chunk := stream.read(CHUNK):
                allowance.take(len(chunk), file)
                found.update(chunk)
    except OSError as error:
        raise SpecError(Problem(str(file), error.strerror or str(error), "a regular file that can be read")) from None
    return found.hexdigest()


def fingerprint(digests: dict[str, str]) -> str:
    """One short digest of all files, which each trial carries; nothing where there are none."""
    text = "".join(f"{digest} {name}\n" for name, digest in sorted(digests.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16] if digests else ""


def read_text(file: Path, allowance: Allowance) -> str:
    """What a file holds; one without anything but spaces is an error."""
    with opened(file, allowance) as unpacked:
        content = b"".join(iter(lambda: unpacked.read(CHUNK), b""))
    text = decoded(content, str(file))
    if not text or text.isspace():
        raise SpecError(Problem(str(file), "an empty file", "text"))
    return text


def decoded(content: bytes, where: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SpecError(Problem(where, f"no UTF-8: {error}", "text in UTF-8")) from None
