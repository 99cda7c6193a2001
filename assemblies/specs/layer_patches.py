"""Patches on single layers, written into a stack's document in the shortest form that says them."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from pairform.assemblies.specs.model import LayerSpec, StackSpec
from pairform.registry import SpecError, merge_patch

Document = dict[str, Any]


def layers_of(stack: Document) -> tuple[LayerSpec, ...]:
    """The layers of a stack's document, as they are with all of its patches."""
    return StackSpec.read(stack | {"vision": None}).layers


def with_layer_patches(stack: Document, patches: Sequence[Document]) -> Document:
    """A stack's document with the merge patch `patches[i]` on layer i, whatever its template, cycle and overrides say.

    It stands in the template where that gives every layer what it should have, else in the cycle, else in overrides.
    """
    if not any(patches):
        return stack
    made: dict[tuple[int, str], LayerSpec] = {}
    wanted = []
    for layer, patch in zip(layers_of(stack), patches, strict=True):
        key = id(layer), json.dumps(patch)
        if key not in made:
            made[key] = LayerSpec.read(merge_patch(layer.document(), patch, LayerSpec)) if patch else layer
        wanted.append(made[key])
    return next((form for form in short_forms(stack, patches) if says(form, wanted)), with_overrides(stack, patches))


def short_forms(stack: Document, patches: Sequence[Document]) -> Iterator[Document]:
    """Ways to write patches without an override. They may be undone by what the stack says of single layers."""
    if all(patch == patches[0] for patch in patches):
        yield stack | {"layer": merge_patch(stack["layer"], patches[0], LayerSpec)}
    cycle = list(stack.get("cycle") or [{}])
    turns = [patches[turn] if turn < len(patches) else {} for turn in range(len(cycle))]
    if all(patch == turns[index % len(cycle)] for index, patch in enumerate(patches)):
        yield stack | {"cycle": [merge_patch(old, patch, LayerSpec) for old, patch in zip(cycle, turns, strict=True)]}


def says(stack: Document, wanted: Sequence[LayerSpec]) -> bool:
    try:
        return list(layers_of(stack)) == wanted
    except SpecError:
        return False


def with_overrides(stack: Document, patches: Sequence[Document]) -> Document:
    """One override for each patch, on all of its layers."""
    kinds: list[Document] = []
    for patch in patches:
        if patch and patch not in kinds:
            kinds.append(patch)
    numbered = [[index for index, patch in enumerate(patches) if patch == kind] for kind in kinds]
    added = [{"layers": layers, "patch": kind} for layers, kind in zip(numbered, kinds, strict=True)]
    return stack | {"overrides": [*(stack.get("overrides") or []), *added]}
