"""Finding data files by patterns."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, Strict

from pairform.registry import Problem, SpecError

Globs = Annotated[tuple[str, ...], Strict(False), Field(min_length=1)]
"""Patterns such as `docs/*.md`, relative to the folder of the document that has them."""
MOST_FILES = 10_000


def find_files(folder: Path, patterns: Sequence[str], where: str) -> list[Path]:
    """The files that match, sorted; `SpecError` for a pattern without one. where: the field of the patterns."""
    found: set[Path] = set()
    for pattern in patterns:
        try:
            some = [file for file in itertools.islice(folder.glob(pattern), MOST_FILES + 1) if not file.is_dir()]
        except (ValueError, NotImplementedError, OSError, RecursionError) as error:
            raise SpecError(Problem(where, f"{pattern!r}: {error}", "a pattern relative to the document's folder")) from None
        if not some:
            raise SpecError(Problem(where, f"no file {pattern!r} in {folder.absolute()}", "at least one"))
        found.update(file.resolve() for file in some)
    if len(found) > MOST_FILES:
        raise SpecError(Problem(where, f"more than {MOST_FILES:,} files", "fewer", "Put several texts in one .jsonl file."))
    return sorted(found)
