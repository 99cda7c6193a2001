"""JSON as documents hold it: reading a file, and checking that a value is JSON and no larger than a document may be."""

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
"""How many objects and lists a document may nest: far above any spec, far below what would exhaust Python's stack."""
VALUES = 200_000
"""How many values a document may hold: a thousand layers that are each written out take about a third of it."""
BITS = 64
"""Whole numbers beyond it are no sizes, ids or seeds."""
LARGEST_BITS = 900
"""Of any whole number in a file: more may be more than a float can hold."""
SUSPECT = re.compile(r"\\u[dD][89a-fA-F]|[eE]\+?\d{2}|\d{250}")
"""What a document holds that spells half of a surrogate pair, or a number beyond the largest float; others may hold it too."""


def read_json(path: Path, limit: int = DOCUMENT_BYTES) -> dict[str, Any]:
    """The object in a JSON file of at most `limit` bytes and `DEEPEST` levels.

    Keys given twice, numbers that are not finite and texts that UTF-8 cannot write are errors too.
    """
    try:
        text = read_text(path, limit)
        document = parse_json(text)
    except FileNotFoundError:
        raise SpecError(Problem(str(path), "no such file", "a JSON file")) from None
    except OSError as error:
        raise SpecError(Problem(str(path), error.strerror or str(error), "a readable JSON file")) from None
    except ValueError as error:
        raise SpecError(Problem(str(path), told(error), "a JSON document")) from None
    except RecursionError:
        raise SpecError(too_deep(str(path))) from None
    if not isinstance(document, dict):
        raise SpecError(Problem(str(path), shorten(document), "a JSON object"))
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
    """Every value in a JSON value that holds no others, and every key, each with its path."""
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
    """Whether UTF-8 can write it: JSON can also spell half of a surrogate pair."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def half_character(where: str, text: str) -> Problem:
    return Problem(where, f"{shorten(text)}, which holds half a character (a lone surrogate)", "text that UTF-8 can write")


def parse_json(text: str) -> Any:
    """The value that `text` holds; a `ValueError` says what is wrong with it."""
    return json.loads(text, object_pairs_hook=unique, parse_constant=constant)


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys are there once: of two values of one key, programs read the first or the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        key, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"the key {shorten(key)} twice in one object")
    return found


def constant(name: str) -> NoReturn:
    raise ValueError(f"{name}, which JSON does not have")


def told(error: ValueError) -> str:
    """What a `ValueError` of `parse_json` says, without Python's advice to programmers."""
    if isinstance(error, json.JSONDecodeError):
        return f"a syntax error at line {error.lineno}, column {error.colno} ({error.msg[0].lower()}{error.msg[1:]})"
    if "set_int_max_str_digits" in str(error):
        return "a number with thousands of digits"
    return str(error)


def as_object(document: object, where: str = "") -> dict[str, Any]:
    """A copy of `document`, which must be an object of JSON values: nothing else, not too many of them, none nested too deeply.

    Mappings become dicts and tuples lists. `SpecError` names the place of what is no JSON, from `where` on.
    """
    if not isinstance(document, Mapping):
        raise SpecError(Problem(where, shorten(document), "a JSON object"))
    copied: dict[str, Any] = Checker(where).copy(document, (), 1)
    return copied


class Checker:
    """Copies one document and counts its values, so that a value that is met again and again has an end too."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.count = 0

    def copy(self, value: object, path: tuple[str, ...], level: int) -> Any:
        """`path` leads to `value`, which is inside `level` objects and lists, itself included."""
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
