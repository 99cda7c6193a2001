"""What there is to say of a block, taken from its class: docstrings, its spec's fields, the shapes of its `forward`."""

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, get_args

from pairform.registry import KINDS, LIMIT, SLOT_KEY, BlockSpec, PairformError, Sizes, registry_of

PAPER = re.compile(r"arXiv (\d{4}\.\d{5})")
OWNERS = {"ModelSpec": "the model", "StackSpec": "a stack", "LayerSpec": "a layer", "VisionSpec": "a stack's vision"}
HOSTS = {
    "an encoder or a decoder alone": Sizes(512, vocabulary=32_000, pad=0),
    "a decoder beside an encoder": Sizes(512, source_width=512, vocabulary=32_000, pad=0),
}
TOLD = ("attention", "feed_forward", "embedding")
"""Kinds whose blocks are told whether there is a source to read."""


@dataclass(frozen=True)
class Option:
    """A field of a spec. `default` is as JSON writes it; None where there is none: absent or `required`."""

    path: str
    type: str
    default: str | None
    required: bool
    says: str


@dataclass(frozen=True)
class Page:
    """A block's page. `fits`: the fields that take it; `refused`: where it says that it cannot be used."""

    kind: str
    name: str
    text: str
    papers: tuple[str, ...]
    shapes: str
    fits: tuple[str, ...]
    refused: tuple[str, ...]
    options: tuple[Option, ...]
    example: dict[str, Any]

    def document(self) -> dict[str, Any]:
        return asdict(self)


def page(kind: str, name: str) -> Page:
    """The page of one block; a kind or name that is not known is an error with near ones."""
    block = registry_of(kind)[name]
    schema = block.Spec.model_json_schema()
    docs = [inspect.getdoc(block) or "", *spec_docs(block.Spec)]
    parted = [part(doc, schema["properties"]) for doc in docs]
    says = {field: text for _, found in reversed(parted) for field, text in found.items()}
    text = "\n\n".join(prose for prose, _ in parted if prose)
    return Page(
        kind,
        name,
        text,
        tuple(dict.fromkeys(PAPER.findall(" ".join(docs[0].split())))),
        shapes(block),
        tuple(places(kind)),
        tuple(refusals(kind, block.Spec)),
        tuple(option for field in schema["properties"] if field != "name" for option in options(field, schema, says)),
        example(block.Spec),
    )


def spec_docs(spec: type[BlockSpec]) -> Iterator[str]:
    """What a spec and those that it extends say of the fields that they bring."""
    for each in spec.__mro__:
        if issubclass(each, BlockSpec) and each is not BlockSpec and vars(each).get("__annotations__"):
            yield inspect.cleandoc(vars(each).get("__doc__") or "")


def example(spec: type[BlockSpec]) -> dict[str, Any]:
    """The spec's example; of a block whose author gave none for a required field, only its name."""
    try:
        return spec.example()
    except PairformError:
        return {"name": spec.model_fields["name"].default}


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


def shapes(block: Any) -> str:
    """What `forward` takes and gives, as its annotations say."""
    signature = inspect.signature(block.forward)
    takes = [
        f"{name}{shape(parameter.annotation)}"
        for name, parameter in signature.parameters.items()
        if name not in ("self", "context")
    ]
    gives = signature.return_annotation
    return f"{', '.join(takes)} -> {shape(gives).strip() or ('nothing' if gives is None else 'a tensor')}"


def shape(annotation: Any) -> str:
    found = [getattr(each, "dim_str", None) for each in (annotation, *get_args(annotation))]
    return next((f" [{', '.join(each.split())}]" for each in found if each is not None), "")


def places(kind: str) -> Iterator[str]:
    """The fields that hold a block of this kind, by the JSON Schema."""
    from pairform.assemblies.schema import schema

    holders: dict[str, list[str]] = {}
    for owner, definition in schema()["$defs"].items():
        if not owner.startswith("slot.") and not owner.endswith(":patch"):
            for field, value in definition.get("properties", {}).items():
                slots = re.findall(r'"#/\$defs/slot\.([^"]+)"', json.dumps(value))
                if any(kind in slot.split("-or-") for slot in slots):
                    holders.setdefault(field, []).append(owner)
    for field, owners in holders.items():
        told = [OWNERS[owner] for owner in owners if owner in OWNERS]
        for each in KINDS:
            names = [owner.partition(".")[2] for owner in owners if owner.startswith(f"{each}.")]
            if names:
                told.append(each if len(names) == len(KINDS[each]) else f"{each} ({', '.join(names)})")
        yield f"{field} of {', '.join(told)}"


def refusals(kind: str, spec: type[BlockSpec]) -> Iterator[str]:
    """Where the block's example does not fit, in the words of its own check."""
    if kind not in TOLD:
        return
    try:
        block = spec.read(spec.example())
    except PairformError:
        return
    for host, sizes in HOSTS.items():
        for problem in block.check(sizes):
            yield f"{host} (expected {problem.expected})"
