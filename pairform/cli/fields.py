"""The fields of documents, read from their JSON Schema: type, default and description of each."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from pydantic import BaseModel

from pairform.cli.options import print_json
from pairform.registry import SLOT_KEY, Problem, SpecError, shorten, suggest


@dataclass(frozen=True)
class Option:
    """A field of a spec. default: as JSON; None if the field is required or absent by default."""

    path: str
    type: str
    default: str | None
    required: bool
    says: str


def options(field: str, schema: Mapping[str, Any], path: str = "") -> Iterator[Option]:
    """The field's option, then those of the objects that it holds, or of each variant of them."""
    value = schema["properties"][field]
    default = None if value.get("default") is None else json.dumps(value["default"])
    says, required = value.get("description", ""), field in schema.get("required", ())
    held = [inner for each in variants(value) for inner in variants(each.get("items", each))]
    objects = [schema["$defs"][each["$ref"].rpartition("/")[2]] for each in held if "$ref" in each]
    objects = [each for each in objects if "properties" in each]
    listed = any("items" in each for each in variants(value))
    if len(objects) > 1 and listed:
        yield Option(path + field, words(value), default, required, says)
        names = " or ".join(json.dumps(name) for each in objects for name in names_of(each))
        yield Option(f"{path}{field}.name", names, None, True, "What each of them is.")
    elif len(objects) > 1:
        names = " or ".join(dict.fromkeys(json.dumps(name) for each in objects for name in names_of(each)))
        chosen = value.get("default")
        says += " An object must have a `name`." if chosen else ""
        yield Option(f"{path}{field}.name", names, chosen and json.dumps(chosen["name"]), required, says)
    else:
        yield Option(path + field, words(value), None if objects and not listed else default, required, says)
    for each in objects:
        variant = f" ({' or '.join(names_of(each))})" if len(objects) > 1 else ""
        if variant:
            yield Option(f"{path}{field}{variant}", "object", None, False, " ".join(each.get("description", "").split()))
        scope = {"$defs": schema.get("$defs", {})} | each
        for inside in each["properties"]:
            if not (len(objects) > 1 and inside == "name") and "const" not in each["properties"][inside]:
                for option in options(inside, scope, f"{path}{field}."):
                    yield replace(option, path=option.path + variant)


def names_of(variant: Mapping[str, Any]) -> list[str]:
    """The names of an object that is one of several by its name."""
    name = variant["properties"]["name"]
    return name["enum"] if "enum" in name else [name["const"]]


def variants(value: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    for key in ("anyOf", "oneOf"):
        if key in value:
            return [inner for each in value[key] for inner in variants(each)]
    return [value]


def words(value: Mapping[str, Any]) -> str:
    """A JSON Schema in words."""
    return " or ".join(dict.fromkeys(kind for each in variants(value) if (kind := word(each)) is not None))


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
    limits = [f"{sign} {value[key]:g}" for key, sign in bounds.items() if key in value and abs(value[key]) < 2**30]
    return " ".join([str(value.get("type", "object")), *limits])


def fields_of(spec: type[BaseModel]) -> list[Option]:
    """All fields of a spec, and of the objects in them."""
    schema = spec.model_json_schema()
    return [option for field in schema["properties"] for option in options(field, schema)]


def show_fields(spec: type[BaseModel], path: str | None, as_json: bool) -> None:
    """Print the fields of a spec: those at `path` and below, or all.

    Raises:
        SpecError: there is no field at that path.
    """
    known = fields_of(spec)
    found = [option for option in known if path is None or f"{option.path.partition(' ')[0]}.".startswith(f"{path}.")]
    if not found:
        names = sorted({option.path.partition(" ")[0] for option in known})
        raise SpecError(Problem("PATH", shorten(path), "the path of a field", suggest(path or "", names)))
    if as_json:
        print_json([asdict(option) for option in found])
    else:
        print_fields(found)


def print_fields(found: Iterable[Option]) -> None:
    """Two lines or more for each field."""
    from rich.padding import Padding
    from rich.text import Text

    from pairform.cli.display.printing import console

    for option in found:
        default = ", required" if option.required else f", default {option.default}" if option.default else ""
        console.print(Text.assemble((option.path, "bold"), f"  {option.type}{default}"))
        console.print(Padding(option.says, (0, 0, 0, 4)))
