"""A spec as a tree, from its expanded form alone, so that showing a preset imports neither blocks nor torch."""

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rich.text import Text

from pairform.assemblies.specs.ranges import ranges
from pairform.cli.display.printing import Outline, console
from pairform.registry.errors import printable
from pairform.registry.merge import merge_patch

if TYPE_CHECKING:
    from pairform.assemblies.specs.model import ModelSpec, StackSpec

Document = Mapping[str, Any]


def print_spec(title: str, document: Document) -> None:
    """Print a model. document: its spec's expanded form."""
    tree = Outline(heading(title, f"{document['assembly']}, vocabulary {document['vocabulary']:,}"))
    for name in ("encoder", "decoder"):
        if name in document:
            stack = document[name]
            shared = document["tie_embeddings"] and name == "decoder"
            add_stack(tree, name, stack, "the encoder's" if shared else words(stack["embedding"]))
        if name == "encoder" and document["bridge"]["name"] != "none":
            tree.add(f"bridge  {words(document['bridge'])}")
    tree.add(f"head  {words(document['head'])}")
    console.print(tree)


def heading(name: str, rest: str) -> Text:
    return Text.assemble((printable(name), "bold"), f"  {printable(rest)}")


def add_stack(tree: Outline, name: str, stack: Document, embedding: str) -> None:
    node = tree.add(heading(name, f"width {stack['width']}, {stack['depth']} layer{'s' * (stack['depth'] != 1)}"))
    node.add(f"embedding  {embedding}")
    if "position" in stack:
        node.add(f"position  {words(stack['position'])}")
    if "token_types" in stack:
        node.add(f"token types  {stack['token_types']}")
    if "embedding_norm" in stack:
        node.add(f"norm of embeddings  {words(stack['embedding_norm'])}")
    if "vision" in stack:
        vision, tower = stack["vision"], stack["vision"]["tower"]
        frozen = ", frozen" if vision["frozen"] else ""
        inner = node.add(heading("vision", f"image token {vision['image_token']}{frozen}"))
        add_stack(inner, "tower", tower, words(tower["embedding"]))
        inner.add(f"projector  {words(vision['projector'])}")
    for places, layer in kinds(stack):
        branch = node.add(f"layers {places}  {layer['placement']} {words(layer['norm'])}")
        for part in present(layer):
            branch.add(f"{part}  {words(layer['branches'][part])}")
    node.add(f"norm  {words(stack.get('final_norm') or stack['layer']['norm'])}")


def present(layer: Document) -> Iterator[str]:
    """The branches of a layer, in order."""
    for turn in layer["order"]:
        yield from (name for name in ([turn] if isinstance(turn, str) else turn) if name in layer["branches"])


def kinds(stack: Document) -> Iterator[tuple[str, Document]]:
    """Each distinct layer, with the numbers of the layers that equal it."""
    found: dict[str, tuple[Document, list[int]]] = {}
    for index, layer in enumerate(stack.get("layers") or layers_of(stack)):
        found.setdefault(json.dumps(layer), (layer, []))[1].append(index)
    for layer, places in found.values():
        yield ranges(places), layer


def layers_of(stack: Document) -> Iterator[Document]:
    """Every layer of a stack in its expanded form, patches applied. Defaults inside patches are not filled in."""
    for index in range(stack["depth"]):
        layer: Document = stack["layer"]
        if stack["cycle"]:
            layer = merge_patch(layer, stack["cycle"][index % len(stack["cycle"])])
        for override in stack["overrides"]:
            if index in override["layers"] or index - stack["depth"] in override["layers"]:
                layer = merge_patch(layer, override["patch"])
        yield layer


def with_layers(spec: "ModelSpec") -> dict[str, Any]:
    """The expanded form of a spec with all of its layers."""
    document = spec.document()
    for name, stack in spec.stacks.items():
        write_layers(document[name], stack)
    return document


def write_layers(document: dict[str, Any], stack: "StackSpec") -> None:
    documents = {id(layer): layer.document() for layer in stack.layers}
    document["layers"] = [documents[id(layer)] for layer in stack.layers]
    if stack.vision is not None:
        write_layers(document["vision"]["tower"], stack.vision.tower)


def words(document: Document) -> str:
    """A block in one line: its name and options."""
    rest = [f"{key} {text}" for key, value in document.items() if key != "name" and value and (text := inline(value))]
    return ", ".join([str(document["name"]), *rest])


def inline(value: Any) -> str:
    if isinstance(value, Mapping):
        return words(value) if "name" in value else " ".join(f"{key} {inline(item)}" for key, item in value.items() if item)
    return "yes" if value is True else str(value)
