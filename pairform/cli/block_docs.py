"""Documentation of a block, read from its class: docstring, the JSON Schema of its spec, the shapes of its `forward`."""

import inspect
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

from pairform.cli.fields import Option, options
from pairform.registry import KINDS, BlockSpec, PairformError, Sizes, registry_of

PAPER = re.compile(r"arXiv (\d{4}\.\d{5})")
OWNERS = {"ModelSpec": "the model", "StackSpec": "a stack", "LayerSpec": "a layer", "VisionSpec": "a stack's vision"}
HOSTS = {
    "an encoder or a decoder alone": Sizes(512, vocabulary=32_000, pad=0),
    "a decoder beside an encoder": Sizes(512, source_width=512, vocabulary=32_000, pad=0),
}
SOURCE_DEPENDENT = ("attention", "feed_forward", "embedding")
"""Kinds whose blocks depend on whether there is a source to read."""


@dataclass(frozen=True)
class Page:
    """Documentation of a block. fits: the fields that accept it; refused: where its own check rejects it.

    formula: what it computes, as Markdown with LaTeX between dollar signs.
    """

    kind: str
    name: str
    text: str
    formula: str
    papers: tuple[str, ...]
    shapes: str
    fits: tuple[str, ...]
    refused: tuple[str, ...]
    options: tuple[Option, ...]
    example: dict[str, Any]


def page(kind: str, name: str) -> Page:
    """The page of one block.

    Raises:
        SpecError: the kind or the name is unknown; the message suggests close ones.
    """
    block = registry_of(kind)[name]
    schema = block.Spec.model_json_schema()
    text = inspect.getdoc(block) or ""
    own = " ".join(schema["properties"].get(field, {}).get("description", "") for field in inspect.get_annotations(block.Spec))
    return Page(
        kind,
        name,
        paragraphs(text),
        paragraphs(inspect.cleandoc(getattr(block.Spec, "formula", ""))),
        tuple(dict.fromkeys(PAPER.findall(" ".join(f"{text} {own}".split())))),
        shapes(block),
        tuple(places(kind)),
        tuple(refusals(kind, block.Spec)),
        tuple(option for field in schema["properties"] if field != "name" for option in options(field, schema)),
        example(block.Spec),
    )


def paragraphs(text: str) -> str:
    """`text` with one line for each paragraph."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def example(spec: type[BlockSpec]) -> dict[str, Any]:
    """The spec's example, or only its name if a required field has no example."""
    try:
        return spec.example()
    except PairformError:
        return {"name": spec.model_fields["name"].default}


def shapes(block: Any) -> str:
    """Shapes of `forward`'s arguments and result, from its annotations."""
    signature = inspect.signature(block.forward)
    arguments = [
        f"{name}{shape(parameter.annotation)}"
        for name, parameter in signature.parameters.items()
        if name not in ("self", "context")
    ]
    result = signature.return_annotation
    return f"{', '.join(arguments)} -> {shape(result).strip() or ('nothing' if result is None else 'a tensor')}"


def shape(annotation: Any) -> str:
    found = [getattr(each, "dim_str", None) for each in (annotation, *get_args(annotation))]
    return next((f" [{', '.join(each.split())}]" for each in found if each is not None), "")


def places(kind: str) -> Iterator[str]:
    """The fields that accept a block of this kind, from the JSON Schema."""
    from pairform.assemblies.specs.schema import schema

    holders: dict[str, list[str]] = {}
    for owner, definition in schema()["$defs"].items():
        if not owner.startswith("slot.") and not owner.endswith(":patch"):
            for field, value in definition.get("properties", {}).items():
                slots = re.findall(r'"#/\$defs/slot\.([^"]+)"', json.dumps(value))
                if any(kind in slot.split("-or-") for slot in slots):
                    holders.setdefault(field, []).append(owner)
    for field, owners in holders.items():
        described = [OWNERS[owner] for owner in owners if owner in OWNERS]
        for each in KINDS:
            names = [owner.partition(".")[2] for owner in owners if owner.startswith(f"{each}.")]
            if names:
                described.append(each if len(names) == len(KINDS[each]) else f"{each} ({', '.join(names)})")
        yield f"{field} of {', '.join(described)}"


def refusals(kind: str, spec: type[BlockSpec]) -> Iterator[str]:
    """Where the block's own check rejects its example."""
    if kind not in SOURCE_DEPENDENT:
        return
    try:
        block = spec.read(spec.example())
    except PairformError:
        return
    for host, sizes in HOSTS.items():
        for problem in block.check(sizes):
            yield f"{host} (expected {problem.expected})"
