"""Pydantic's errors as problems: JSON path, what was found, what was expected, similar names."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal, TypeAlias, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from pairform.registry.errors import Problem, join_path, shorten, suggest

Holder: TypeAlias = type[BaseModel]
MOST = 1000
"""Largest number of problems that are reported for a document."""

TYPES = {
    "a whole number": ("int_type", "int_from_float", "int_parsing", "int_parsing_size"),
    "a number": ("float_type", "float_parsing"),
    "a finite number": ("finite_number",),
    "true or false": ("bool_type", "bool_parsing"),
    "a string": ("string_type", "string_sub_type", "string_unicode"),
    "a list": ("list_type", "tuple_type", "set_type", "frozen_set_type", "iterable_type"),
    "an object": ("dict_type", "mapping_type", "model_type", "model_attributes_type"),
    "keys that are strings": ("invalid_key",),
    "null": ("none_required",),
}
EXPECTED = {kind: words for words, kinds in TYPES.items() for kind in kinds} | {
    "greater_than": "a number greater than {gt}",
    "greater_than_equal": "a number greater than or equal to {ge}",
    "less_than": "a number less than {lt}",
    "less_than_equal": "a number less than or equal to {le}",
    "multiple_of": "a multiple of {multiple_of}",
    "too_short": "at least {min_length} of them",
    "too_long": "at most {max_length} of them",
    "string_too_short": "at least {min_length} characters",
    "string_too_long": "at most {max_length} characters",
    "string_pattern_mismatch": "a string that matches {pattern}",
    "literal_error": "{expected}",
    "enum": "{expected}",
    "union_tag_invalid": "one of {expected_tags}",
    "value_error": "{error}",
    "assertion_error": "{error}",
}
"""What is expected, by pydantic's error type; names in braces are filled in from the error's context."""
ABSENT = object()
REQUIRED = "a value: this field is required"


def nested(problems: Any) -> PydanticCustomError:
    """Raise this in a pydantic validator to report problems, which a `ValueError` would flatten into one line.

    Returns:
        The error to raise.
    """
    return PydanticCustomError("nested", "problems inside", {"problems": list(problems)})


def problems_in(error: ValidationError, document: object, spec: type[BaseModel], where: str = "") -> Iterator[Problem]:
    """The errors of validating `document` as a `spec`, as problems with JSON paths.

    If no type of a union accepts a value, pydantic reports an error for each. They become one problem, at an item if one type
    accepts the list except for that item.
    """
    details = error.errors(include_url=False)
    places: dict[tuple[int | str, ...], list[ErrorDetails]] = {}
    for detail in details[:MOST]:
        places.setdefault(tuple(steps_in(detail, document)), []).append(detail)
    # places with errors inside them: there one type of a union got further, and the errors of the others say nothing
    holders = {steps[:depth] for steps in places for depth in range(len(steps))}
    for steps, found in places.items():
        path = join_path(where, *(f"[{step}]" if isinstance(step, int) else step for step in steps))
        expected: dict[str, Problem] = {}
        for detail in found:
            if detail["type"] == "nested":
                yield from (problem.inside(path) for problem in detail["ctx"]["problems"])
            elif steps not in holders:
                problem = problem_of(detail, path, holders_at(spec, document, steps[:-1]), holders_at(spec, document, steps))
                expected[problem.expected] = problem
        if expected:
            first = next(iter(expected.values()))
            yield replace(
                first, expected=" or ".join(expected), remedy=" ".join({each.remedy for each in expected.values()} - {""})
            )
    if len(details) > MOST:
        yield Problem(where, f"{len(details):,} problems", "none", f"Only the first {MOST:,} are shown.")


def problem_of(detail: ErrorDetails, path: str, around: Iterable[Holder] = (), here: Iterable[Holder] = ()) -> Problem:
    """One error. around: the specs of the object that contains the value at `path`. here: those that the value may be."""
    kind, context, found = detail["type"], detail.get("ctx", {}), shorten(detail["input"])
    if kind == "missing":
        return Problem(path, "nothing", REQUIRED)
    if kind == "union_tag_not_found":
        names = " or ".join(map(repr, names_of(here)))
        return Problem(join_path(path, "name"), "nothing", f"{names}: this field is required" if names else REQUIRED)
    if kind == "extra_forbidden":
        known, name = fields_of(around), str(detail["loc"][-1])
        meant = [field for field in known if name == initials(field)]
        meant += [
            f"{field}.{inner}" for field, held in known.items() for inner in fields_of(held) if name in (inner, initials(inner))
        ]
        remedy = f"Did you mean {' or '.join(map(repr, meant[:3]))}?" if meant else suggest(name, known)
        return Problem(path, f"an unknown field with value {found}", f"one of {', '.join(known)}", remedy)
    expected = EXPECTED.get(kind, "another value").format_map(context)
    if kind == "union_tag_invalid":
        return Problem(join_path(path, "name"), shorten(context["tag"]), expected, near(context["tag"], expected))
    if expected == "an object":
        return Problem(path, found, expected, as_object(detail["input"], here))
    return Problem(path, found, expected, near(detail["input"], expected) if kind in ("literal_error", "enum") else "")


def initials(field: str) -> str:
    """The first letters of a field of several words, `lr` of `learning_rate`; a field of one word itself."""
    words = field.split("_")
    return "".join(word[:1] for word in words) if len(words) > 1 else field


def as_object(value: object, specs: Iterable[Holder]) -> str:
    """How to write a value that is a choice of a field as the object with that field, or nothing."""
    fields = [name for each in specs for name, info in each.model_fields.items() if value in choices(info.annotation)]
    return f'Write {{"{fields[0]}": "{value}"}}.' if fields else ""


def found_and_expected(error: ValidationError) -> str:
    """The message of a single invalid value."""
    detail = error.errors(include_url=False)[0]
    problem = problem_of(detail, "")
    return f"found {problem.found}, expected {problem.expected}"


def near(value: object, expected: str) -> str:
    """A suggestion from the values quoted in `expected`."""
    return suggest(value, re.findall(r"'([^']*)'", expected))


def steps_in(detail: ErrorDetails, document: object) -> Iterator[int | str]:
    """The steps of an error's location in the document, without those that pydantic adds for the types of a union."""
    last = len(detail["loc"]) - 1
    for number, step in enumerate(detail["loc"]):
        inner = inside(document, step)
        if inner is not ABSENT:
            document = inner
        elif detail["type"] != "missing" or number != last:
            continue
        yield step


def inside(document: object, step: int | str) -> object:
    """The value at a key or index of a document, or `ABSENT`."""
    if isinstance(document, Mapping):
        return document.get(step, ABSENT)
    there = isinstance(document, list | tuple) and isinstance(step, int) and step < len(document)
    return document[step] if there else ABSENT  # type: ignore[index]


def holders_at(spec: Holder, document: object, path: Iterable[int | str]) -> list[Holder]:
    """The specs that the value at `path` may be: in a union, the one that the value's `name` selects, or else all."""
    holders = [spec]
    for step in path:
        document = inside(document, step)
        if isinstance(step, str):
            fields = [holder.model_fields[step] for holder in holders if step in holder.model_fields]
            holders = list(dict.fromkeys(held for field in fields for held in specs_in(field.annotation)))
    name = document.get("name") if isinstance(document, Mapping) else None
    return [holder for holder in holders if name in names_of([holder])] or holders


def fields_of(specs: Iterable[Holder]) -> dict[str, list[Holder]]:
    """The fields of specs by name, each with the specs in it."""
    found = {
        info.alias or field: list(specs_in(info.annotation)) for each in specs for field, info in each.model_fields.items()
    }
    return dict(sorted(found.items()))


def names_of(specs: Iterable[Holder]) -> list[object]:
    """The names that select these specs in a union."""
    return [name for each in specs if "name" in each.model_fields for name in choices(each.model_fields["name"].annotation)]


def choices(annotation: object) -> tuple[object, ...]:
    """The values of a field with a fixed choice of them."""
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def specs_in(annotation: object) -> Iterator[Holder]:
    """The specs in a field's type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    else:
        for inner in get_args(annotation):
            yield from specs_in(inner)
