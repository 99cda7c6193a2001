"""Files as data: which ones patterns name, what texts they hold, and a digest by which a later run knows them again."""

import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, Strict

from pairform.registry import Problem, SpecError

Globs = Annotated[tuple[str, ...], Strict(False), Field(min_length=1)]
"""Patterns such as `docs/*.md`, from the study's folder on."""
JSONL, GZIP = ".jsonl", ".gz"


def find_files(folder: Path, patterns: Sequence[str], where: str) -> list[Path]:
    """Files by name; a pattern that none has is an error."""
    found: set[Path] = set()
    for pattern in patterns:
        try:
            some = [file for file in folder.glob(pattern) if file.is_file()]
        except (ValueError, NotImplementedError) as error:
            raise SpecError(Problem(where, f"{pattern!r}: {error}", "a pattern from the study's folder on")) from None
        if not some:
            raise SpecError(Problem(where, f"no file {pattern!r} in {folder.absolute()}", "at least one"))
        found.update(file.resolve() for file in some)
    return sorted(found)


def digests(folder: Path, files: Sequence[Path]) -> dict[str, str]:
    """The SHA-256 of each file's bytes, by its path from `folder` on."""
    paths = {Path(os.path.relpath(file.resolve(), folder.resolve())).as_posix(): file for file in files}
    return {name: hashlib.sha256(read_bytes(paths[name])).hexdigest() for name in sorted(paths)}


def fingerprint(digests: dict[str, str]) -> str:
    """One short digest of all files, which each trial carries; nothing where there are none."""
    text = "".join(f"{digest} {name}\n" for name, digest in sorted(digests.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16] if digests else ""


def is_jsonl(file: Path) -> bool:
    return Path(file.name.removesuffix(GZIP)).suffix == JSONL


def read_text(file: Path) -> str:
    """What a file holds, unpacked if it ends in `.gz`; one without anything but spaces is an error."""
    content = read_bytes(file)
    try:
        text = (gzip.decompress(content) if file.suffix == GZIP else content).decode("utf-8")
    except UnicodeDecodeError as error:
        raise SpecError(Problem(str(file), f"no UTF-8: {error}", "text in UTF-8")) from None
    except (OSError, EOFError, zlib.error) as error:
        raise SpecError(Problem(str(file), f"no gzip: {error}", "a file as gzip writes it")) from None
    if not text.strip():
        raise SpecError(Problem(str(file), "an empty file", "text"))
    return text


def read_bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise SpecError(Problem(str(file), error.strerror or str(error), "a file that can be read")) from None


def read_lines(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each object of a JSONL file with its place, as errors name it. Empty lines are left out."""
    for number, line in enumerate(read_text(file).split("\n"), 1):
        if line.strip():
            where = f"{file}: line {number}"
            try:
                value = json.loads(line)
            except ValueError as error:
                raise SpecError(Problem(where, f"no JSON: {error}", "one object")) from None
            if not isinstance(value, dict):
                raise SpecError(Problem(where, type(value).__name__, "one object"))
            yield where, value


def text_at(where: str, line: dict[str, Any], name: str) -> str:
    """The text in a line's field."""
    value = line.get(name)
    if not isinstance(value, str):
        found = f"no field {name!r}" if value is None else f"{type(value).__name__} in the field {name!r}"
        raise SpecError(Problem(where, found, f"a text in {name!r}: the line has {', '.join(map(repr, line)) or 'no field'}"))
    return value
