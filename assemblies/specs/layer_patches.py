"""Patches on single layers, written into a stack's document in the shortest form."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from pairform.assemblies.specs.model import LayerSpec, StackSpec
from pairform.registry import SpecError, merge_patch

Document = dict[str, Any]


def layers_of(stack: Document) -> tuple[LayerSpec, ...]:
    """The layers of a stack's document, with all of its patches."""
    return StackSpec.read(stack | {"vision": None}).layers


def with_layer_patches(stack: Document, patches: Sequence[Document]) -> Document:
    """A stack's document with the merge patch `patches[i]` on layer i, on top of its template, cycle and overrides.

    The patch goes into the template if that gives every layer its spec, else into the cycle, else into overrides.
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
    return next((form for form in short_forms(stack, patches) if has_layers(form, wanted)), with_overrides(stack, patches))


def short_forms(stack: Document, patches: Sequence[Document]) -> Iterator[Document]:
    """Documents with the patches in the template or the cycle. The stack's own overrides may undo them."""
    if all(patch == patches[0] for patch in patches):
        yield stack | {"layer": merge_patch(stack["layer"], patches[0], LayerSpec)}
    cycle = list(stack.get("cycle") or [{}])
    periodic = [patches[index] if index < len(patches) else {} for index in range(len(cycle))]
    if all(patch == periodic[index % len(cycle)] for index, patch in enumerate(patches)):
        yield stack | {"cycle": [merge_patch(old, patch, LayerSpec) for old, patch in zip(cycle, periodic, strict=True)]}


def has_layers(stack: Document, wanted: Sequence[LayerSpec]) -> bool:
    try:
        return list(layers_of(stack)) == wanted
    except SpecError:
        return False


def with_overrides(stack: Document, patches: Sequence[Document]) -> Document:
    """A stack's document with one override for each distinct patch."""
    kinds: list[Document] = []
    for patch in patches:
        if patch and patch not in kinds:
            kinds.append(patch)
    numbered = [[index for index, patch in enumerate(patches) if patch == kind] for kind in kinds]
    added = [{"layers": layers, "patch": kind} for layers, kind in zip(numbered, kinds, strict=True)]
    return stack | {"overrides": [*(stack.get("overrides") or []), *added]}
