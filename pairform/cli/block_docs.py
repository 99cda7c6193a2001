"""What there is to say of a block, taken from its class: docstrings, its spec's fields, the shapes of its `forward`."""

import inspect
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, get_args

from pairform.cli.block_options import Option, options, part
from pairform.registry import KINDS, BlockSpec, PairformError, Sizes, registry_of

PAPER = re.compile(r"arXiv (\d{4}\.\d{5})")
OWNERS = {"ModelSpec": "the model", "StackSpec": "a stack", "LayerSpec": "a layer", "VisionSpec": "a stack's vision"}
HOSTS = {
    "an encoder or a decoder alone": Sizes(512, vocabulary=32_000, pad=0),
    "a decoder beside an encoder": Sizes(512, source_width=512, vocabulary=32_000, pad=0),
}
TOLD = ("attention", "feed_forward", "embedding")
"""Kinds whose blocks are told whether there is a source to read."""


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
    from pairform.assemblies.specs.schema import schema

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
