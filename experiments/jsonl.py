"""JSONL files, one object a line."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pairform.experiments.files import GZIP, Allowance, decoded, opened
from pairform.registry import Problem, SpecError, shorten

JSONL = ".jsonl"
LINE_BYTES = 16 << 20
MOST_LINES = 1 << 22
"""Of a file: each takes a few hundred bytes of memory beside its text."""


def is_jsonl(file: Path) -> bool:
    return Path(file.name.removesuffix(GZIP)).suffix == JSONL


def read_lines(file: Path, allowance: Allowance) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each object of a file with its place, as errors name it. Empty lines are left out; a file of no others is an error."""
    number, empty = 0, True
    with opened(file, allowance) as unpacked:
        while line := unpacked.readline(LINE_BYTES + 1):
            number += 1
            where = f"{file}: line {number}"
            if len(line) > LINE_BYTES:
                raise SpecError(Problem(where, f"more than {LINE_BYTES:,} bytes", "a shorter line"))
            if number > MOST_LINES:
                raise SpecError(Problem(where, f"more than {MOST_LINES:,} lines", "fewer", "Spread them over several files."))
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
    """The text in a line's field."""
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
