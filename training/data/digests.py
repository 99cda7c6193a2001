"""Which files patterns name, and a digest by which a later run knows them again."""

import hashlib
import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, Strict

from pairform.registry import Problem, SpecError, open_regular
from pairform.training.data.files import CHUNK, Allowance

Globs = Annotated[tuple[str, ...], Strict(False), Field(min_length=1)]
"""Patterns such as `docs/*.md`, from the study's folder on."""
MOST_FILES = 10_000


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
