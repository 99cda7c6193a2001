"""The JSON Schema of spec documents, with which an editor completes and checks them."""

from collections.abc import Mapping, Sequence
from inspect import getdoc
from typing import Any

from pairform.assemblies.specs.model import SCHEMA_ID, LayerSpec, ModelSpec, StackSpec
from pairform.assemblies.specs.stack import Override
from pairform.registry import KINDS, SLOT_KEY, Spec

Schema = dict[str, Any]
DRAFT = "https://json-schema.org/draft/2020-12/schema"
REF = "#/$defs/"
PATCH = ":patch"
"""Suffix of definitions of merge patches: nothing is required, and `null` removes a field."""
EXTENDING = ":extending"
"""Suffix of such definitions with `extends`: of models and their stacks, not of vision towers."""

EXTENDS: Schema = {
    "type": "string",
    "description": "A preset's name or a file's path whose document this one patches; `#encoder` or `#decoder` picks a stack.",
}


def schema() -> Schema:
    """The JSON Schema of model documents, as a dict, with all blocks that are registered now."""
    definitions = with_names({**model_definitions(), **block_definitions(), **slot_definitions()})
    definitions = {name: with_slots(definition) for name, definition in definitions.items()}
    patches = {name + PATCH: patch_of(name, definition) for name, definition in definitions.items()}
    definitions = {name: nullable(definition) for name, definition in definitions.items()} | patches
    for name in (ModelSpec.__name__, StackSpec.__name__):
        definitions[name + EXTENDING] = extending(definitions[name + PATCH])
    return {
        "$schema": DRAFT,
        "$id": SCHEMA_ID,
        "title": "pairform model",
        "description": "An encoder-decoder, encoder-only or decoder-only model: a whole document, or a patch on another.",
        **whole_or_extending(ModelSpec.__name__),
        "$defs": dict(sorted(definitions.items())),
    }


def documents(specs: Sequence[type[Spec]], title: str, places: Mapping[tuple[type[Spec], str], Schema]) -> Schema:
    """The JSON Schema of documents that contain those of models.

    Args:
        specs: Class of the documents, and classes that only `places` refer to.
        title: Title of the schema.
        places: By class and field, the schema of a field that holds documents of models or patches on them. It may refer to
            the definitions of `schema()`, and to those of `specs` and their parts, each also as a merge patch.
    """
    own: dict[str, Schema] = {}
    for spec in specs:
        root = spec.model_json_schema()
        own |= root.pop("$defs", {}) | {spec.__name__: root}
    for (owner, field), value in places.items():
        properties = own[owner.__name__]["properties"]
        properties[field] = described(properties[field], value)
    own = with_names(own)
    patches = {name + PATCH: patch_of(name, definition) for name, definition in own.items()}
    definitions = schema()["$defs"] | {name: nullable(definition) for name, definition in own.items()} | patches
    return {"$schema": DRAFT, "title": title, **ref(specs[0].__name__), "$defs": dict(sorted(definitions.items()))}


def whole_or_extending(name: str) -> Schema:
    """A whole document, or a patch with `extends`."""
    extends = {"required": ["extends"], "properties": {"extends": True}}
    return {"type": "object", "if": extends, "then": ref(name + EXTENDING), "else": ref(name)}


def extending(patch: Schema) -> Schema:
    """A patch that may name its base."""
    return patch | {"properties": patch["properties"] | {"extends": EXTENDS}}


def model_definitions() -> dict[str, Schema]:
    """Definitions of model, stack, layer and their parts other than blocks."""
    root = ModelSpec.model_json_schema()
    definitions: dict[str, Schema] = root.pop("$defs")
    definitions[ModelSpec.__name__] = root
    for part in ("encoder", "decoder"):
        root["properties"][part] = described(root["properties"][part], whole_or_extending(StackSpec.__name__))
    stack = definitions[StackSpec.__name__]["properties"]
    stack["cycle"]["items"] = ref(LayerSpec.__name__ + PATCH)
    branches = definitions[LayerSpec.__name__]["properties"]["branches"]
    branches["additionalProperties"] = {"anyOf": [branches["additionalProperties"], {"type": "null"}]}
    override = definitions[Override.__name__]["properties"]
    override["patch"] = described(override["patch"], ref(LayerSpec.__name__ + PATCH))
    return definitions


def described(field: Schema, value: Schema) -> Schema:
    """`value` with the description of the field that it replaces."""
    return {"description": field["description"], **value}


def block_definitions() -> dict[str, Schema]:
    """Definitions of blocks as `kind.name`, described by their classes."""
    definitions: dict[str, Schema] = {}
    for kind, registry in KINDS.items():
        for name, block in registry.items():
            own = block.Spec.model_json_schema()
            definitions |= own.pop("$defs", {})
            own["description"] = getdoc(block) or ""
            own["title"] = f"{kind} {name}"
            own["required"] = sorted({*own.get("required", []), "name"})
            definitions[f"{kind}.{name}"] = own
    return definitions


def slot_definitions() -> dict[str, Schema]:
    """Definitions of slots: one of the blocks of their kinds."""
    slots = [(kind,) for kind in KINDS] + [("attention", "feed_forward")]
    return {
        "slot." + "-or-".join(kinds): {"anyOf": [ref(f"{kind}.{name}") for kind in kinds for name in KINDS[kind]]}
        for kinds in slots
    }


def with_names(definitions: dict[str, Schema]) -> dict[str, Schema]:
    """The same definitions, with `name` required where it selects one of several, as the parser requires it."""
    return {
        key: definition | {"required": sorted({*definition.get("required", []), "name"})}
        if "const" in definition.get("properties", {}).get("name", {})
        else definition
        for key, definition in definitions.items()
    }


def with_slots(value: Any) -> Any:
    """`value` with every slot marker replaced by a reference."""
    if isinstance(value, Mapping):
        items = {key: with_slots(item) for key, item in value.items()}
        return items | ref(items.pop(SLOT_KEY)) if SLOT_KEY in items else items
    return [with_slots(item) for item in value] if isinstance(value, list) else value


def patch_of(name: str, definition: Schema) -> Schema:
    """The same definition for a merge patch."""
    patched: Schema = redirected(definition)
    patched.pop("required", None)
    if name == ModelSpec.__name__:
        for part in ("encoder", "decoder"):
            patched["properties"][part] = ref(StackSpec.__name__ + EXTENDING)
    return nullable(patched)


def nullable(definition: Schema) -> Schema:
    """`definition` with `null` allowed for every field that may be absent."""
    needed, null = ("name", "extends", *definition.get("required", ())), {"type": "null"}
    properties = {
        field: value if field in needed or null in value.get("anyOf", ()) else {"anyOf": [value, null]}
        for field, value in definition.get("properties", {}).items()
    }
    return definition | ({"properties": properties} if properties else {})


def redirected(value: Any) -> Any:
    """`value` with every reference to the definition for patches, and without defaults."""
    if isinstance(value, Mapping):
        items = {key: redirected(item) for key, item in value.items() if key != "default"}
        target = items.get("$ref")
        return items | {"$ref": target + PATCH} if isinstance(target, str) and ":" not in target else items
    if isinstance(value, list):
        return [redirected(item) for item in value]
    return value


def ref(name: str) -> Schema:
    return {"$ref": REF + name}
