"""JSON: reading files, and checking that a value is JSON within limits."""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from pairform.registry.errors import Problem, SpecError, join_path, shorten
from pairform.registry.files import DOCUMENT_BYTES, read_text

DEEPEST = 64
"""Largest nesting depth of a document: far above any spec, far below what would overflow Python's stack."""
VALUES = 200_000
"""Largest number of values in a document: a thousand layers written out have about a third of it."""
BITS = 64
"""Limit of integers in a document: larger ones are no sizes, ids or seeds."""
LARGEST_BITS = 900
"""Limit of integers in a file: larger ones may overflow a float."""
SUSPECT = re.compile(r"\\u[dD][89a-fA-F]|[eE]\+?\d{2}|\d{250}")
"""Matches every document with a lone surrogate or a number beyond the largest float, and some others."""


def read_json(path: Path, limit: int = DOCUMENT_BYTES, content: bytes | None = None) -> dict[str, Any]:
    """Read the object in a JSON file.

    Args:
        path: The file.
        limit: Largest size in bytes.
        content: The file's content, if it has been read.

    Returns:
        The object as a dict.

    Raises:
        SpecError: the file cannot be read, is too large or too deeply nested, or is not an object; a key occurs twice, a number
            is not finite, or a string cannot be encoded as UTF-8.
    """
    try:
        text = read_text(path, limit) if content is None else content.decode("utf-8")
        document = parse_json(text)
    except FileNotFoundError:
        raise SpecError(Problem(str(path), "no such file", "a JSON file")) from None
    except OSError as error:
        raise SpecError(Problem(str(path), error.strerror or str(error), "a readable JSON file")) from None
    except ValueError as error:
        raise SpecError(Problem(str(path), explanation(error), "a JSON document")) from None
    except RecursionError:
        raise SpecError(too_deep(str(path))) from None
    if not isinstance(document, dict):
        raise SpecError(Problem(str(path), shorten(document), "a JSON object"))
    # level by level, since a recursive check could overflow the stack itself
    level: list[Any] = [document]
    for _ in range(DEEPEST):
        level = [item for value in level if isinstance(value, dict | list) for item in inside(value)]
    if level:
        raise SpecError(too_deep(str(path)))
    if SUSPECT.search(text):
        for place, value in leaves(document):
            where = f"{path}: {place}" if place else str(path)
            if isinstance(value, str) and not writable(value):
                raise SpecError(half_character(where, value))
            if isinstance(value, float) and not math.isfinite(value):
                raise SpecError(Problem(where, f"{value}, which JSON does not have", "a finite number"))
            if isinstance(value, int) and value.bit_length() > LARGEST_BITS:
                raise SpecError(Problem(where, shorten(value), f"a whole number of at most {LARGEST_BITS} bits"))
    return document


def inside(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every scalar and every key in a JSON value, with its path."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield join_path(path, key), key
            yield from leaves(item, join_path(path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from leaves(item, f"{path}[{index}]")
    else:
        yield path, value


def writable(text: str) -> bool:
    """Whether UTF-8 can encode it: JSON can also spell lone surrogates."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def half_character(where: str, text: str) -> Problem:
    return Problem(where, f"{shorten(text)}, which holds half a character (a lone surrogate)", "text that UTF-8 can write")


def parse_json(text: str) -> Any:
    """The value of a JSON text; `ValueError` with a message for users."""
    return json.loads(text, object_pairs_hook=unique, parse_constant=constant)


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object without repeated keys, of which parsers use the first or the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        key, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"the key {shorten(key)} twice in one object")
    return found


def constant(name: str) -> NoReturn:
    raise ValueError(f"{name}, which JSON does not have")


def explanation(error: ValueError) -> str:
    """The message of a `ValueError` of `parse_json`, without Python's advice to programmers."""
    if isinstance(error, json.JSONDecodeError):
        return f"a syntax error at line {error.lineno}, column {error.colno} ({error.msg[0].lower()}{error.msg[1:]})"
    if "set_int_max_str_digits" in str(error):
        return "a number with thousands of digits"
    return str(error)


def as_object(document: object, where: str = "") -> dict[str, Any]:
    """Copy a JSON object, with mappings as dicts and tuples as lists.

    Args:
        document: The object.
        where: Prefix of the paths in errors.

    Returns:
        The copy, made of dicts, lists and JSON's scalar types.

    Raises:
        SpecError: a value is not JSON, or the document is too large or too deeply nested.
    """
    if not isinstance(document, Mapping):
        raise SpecError(Problem(where, shorten(document), "a JSON object"))
    return Checker(where).copy(document, (), 1)


class Checker:
    """Copies a document and counts its values, so that a value that contains itself is refused."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.count = 0

    def copy(self, value: object, path: tuple[str, ...], level: int) -> Any:
        """path: of `value`; level: its nesting depth, itself included."""
        self.count += 1
        if self.count > VALUES:
            raise SpecError(Problem(self.where, f"more than {VALUES:,} values", f"at most {VALUES:,} in one document"))
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self.text(value, path)
        if isinstance(value, int | float):
            return self.number(value, path)
        if not isinstance(value, (dict, list, tuple, Mapping)):
            self.refuse(path, f"{shorten(value)} of type {type(value).__name__}", "a JSON value")
        if level > DEEPEST:
            raise SpecError(too_deep(self.where))
        if isinstance(value, list | tuple):
            return [self.copy(item, (*path, f"[{index}]"), level + 1) for index, item in enumerate(value)]
        return {self.key(key, path): self.copy(item, (*path, key), level + 1) for key, item in value.items()}

    def key(self, key: object, path: tuple[str, ...]) -> str:
        if not isinstance(key, str):
            self.refuse(path, f"the key {shorten(key)} of type {type(key).__name__}", "keys that are strings")
        return self.text(key, path)

    def text(self, value: str, path: tuple[str, ...]) -> str:
        if not (value.isascii() or writable(value)):
            raise SpecError(half_character(join_path(self.where, *path), value))
        return str.__str__(value)

    def number(self, value: int | float, path: tuple[str, ...]) -> int | float:
        if isinstance(value, int):
            if value.bit_length() > BITS:
                self.refuse(path, shorten(value), f"a whole number of at most {BITS} bits")
            return int(value)
        if not math.isfinite(value):
            self.refuse(path, f"{value}, which JSON does not have", "a finite number")
        return float(value)

    def refuse(self, path: tuple[str, ...], found: str, expected: str) -> NoReturn:
        raise SpecError(Problem(join_path(self.where, *path), found, expected))


def too_deep(where: str) -> Problem:
    return Problem(where, "JSON nested too deeply", f"at most {DEEPEST} levels")
