"""The options of a block in words: its spec's JSON Schema, and what docstrings say of each field."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pairform.registry import LIMIT, SLOT_KEY


@dataclass(frozen=True)
class Option:
    """A field of a spec. `default` is as JSON writes it; None where there is none: absent or `required`."""

    path: str
    type: str
    default: str | None
    required: bool
    says: str


def part(doc: str, fields: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """A docstring's prose, and what it says of each field: `field: text` at the start of a line or sentence."""
    field = "|".join(map(re.escape, fields))
    start = re.compile(rf"(?:^|(?<=\. ))((?:{field})(?:, (?:{field}))*):\s+", re.MULTILINE)
    prose: list[str] = []
    says: dict[str, str] = {}
    for paragraph in re.split(r"\n\s*\n", doc):
        before, *rest = start.split(paragraph)
        prose.append(" ".join(before.split()))
        for names, text in zip(rest[::2], rest[1::2], strict=True):
            says |= dict.fromkeys(names.split(", "), " ".join(text.split()))
    return "\n\n".join(filter(None, prose)), says


def options(field: str, schema: Mapping[str, Any], says: Mapping[str, str], path: str = "") -> Iterator[Option]:
    """The field, then those of what it holds: an object's, or of each variant's name."""
    value = schema["properties"][field]
    default = None if value.get("default") is None else json.dumps(value["default"])
    objects = [held(each, schema) for each in variants(value) if "$ref" in each]
    objects = [each for each in objects if "properties" in each]
    named = len(objects) > 1
    if named:
        names = " or ".join(json.dumps(name_of(each)) for each in objects)
        yield Option(f"{path}{field}.name", names, json.dumps(value["default"]["name"]), False, says.get(field, ""))
    elif not objects:
        yield Option(path + field, words(value), default, field in schema.get("required", ()), says.get(field, ""))
    for each in objects:
        prose, told = part(each.get("description", ""), each["properties"])
        variant = f" ({name_of(each)})" if named else ""
        if named:
            yield Option(f"{path}{field}{variant}", "object", None, False, prose.replace("\n\n", " "))
        scope = {"$defs": schema.get("$defs", {})} | each
        for inside in each["properties"]:
            if inside != "name":
                found = options(inside, scope, told, f"{path}{field}.")
                yield from (replace(option, path=option.path + variant) for option in found)


def name_of(variant: Mapping[str, Any]) -> str:
    """Of an object that is one of several by its name."""
    name: str = variant["properties"]["name"]["const"]
    return name


def variants(value: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    for key in ("anyOf", "oneOf"):
        if key in value:
            return [inner for each in value[key] for inner in variants(each)]
    return [value]


def held(value: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """The definition that `value` refers to."""
    found: dict[str, Any] = schema["$defs"][value["$ref"].rpartition("/")[2]]
    return found


def words(value: Mapping[str, Any]) -> str:
    """A JSON Schema as words."""
    kinds = [one for each in variants(value) if (one := word(each)) is not None]
    return " or ".join(dict.fromkeys(kinds))


def word(value: Mapping[str, Any]) -> str | None:
    if SLOT_KEY in value:
        return value[SLOT_KEY].removeprefix("slot.").replace("-or-", " or ")
    if "const" in value or "enum" in value:
        return " or ".join(json.dumps(each) for each in value.get("enum", [value.get("const")]))
    if value.get("type") == "null":
        return None
    if value.get("type") == "array":
        inner = [words(each) for each in value.get("prefixItems", ())] or [words(value.get("items", {})), "..."]
        return f"[{', '.join(inner)}]"
    bounds = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}
    told = [f"{sign} {value[key]:g}" for key, sign in bounds.items() if key in value and value[key] != LIMIT]
    return " ".join([str(value.get("type", "object")), *told])
