"""Layers that move to another place or another model take along what they computed by their place.

DeepNorm's alpha and beta, the lambda of differential attention and the rates of dropped paths follow from a layer's number and
from the depths of the stacks, unless the spec gives them. A layer whose weights move keeps the values that they were trained
with: where its new place would give it others, its spec says them from then on.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from pairform.assemblies.specs.layer_patches import with_layer_patches
from pairform.assemblies.specs.model import LayerSpec, ModelSpec, StackSpec
from pairform.registry import Sizes

Part = TypeVar("Part", bound=str)


@dataclass(frozen=True)
class Move:
    """Where the layers of a stack come from: layer i is number `layers[i]` of the stack `part` of `model`."""

    model: ModelSpec
    part: str
    layers: tuple[int, ...]

    @property
    def stack(self) -> StackSpec:
        return self.model.stacks[self.part]


def settled(spec: ModelSpec, moves: Mapping[Part, Move]) -> ModelSpec:
    """`spec` with the values written out that its layers had where they come from. moves: by the stack that they move to."""
    document = spec.document()
    for part, move in moves.items():
        stack = spec.stacks[part]
        patches: list[dict[str, Any]] = [{} for _ in stack.layers]
        for index, old in enumerate(move.layers[: stack.depth]):
            here, there = place(spec, part, index), place(move.model, move.part, old)
            patches[index] = kept(stack.layers[index], here, move.stack.layers[old], there)
        document[part] = with_layer_patches(document[part], patches)
    return spec if document == spec.document() else ModelSpec.read(document)


def place(model: ModelSpec, part: str, index: int) -> Sizes:
    """What the blocks of one layer learn from their surroundings."""
    return replace(model.sizes(part), depth=model.stacks[part].depth, layer=index)


def kept(layer: LayerSpec, here: Sizes, origin: LayerSpec, there: Sizes) -> dict[str, Any]:
    """The patch that gives `layer` what it would compute in the place of `origin`, where both leave that to their place."""
    return moved(origin.sited(there), layer.sited(there), layer.sited(here))


def moved(before: Mapping[str, Any], then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """What of `then`, the new layer in its old place, agrees with the old layer but not with the new place."""
    shared = [field for field in then if field in before and field in now]
    inner = {field: moved(before[field], then[field], now[field]) for field in shared if isinstance(then[field], Mapping)}
    values = {field: then[field] for field in shared if field not in inner}
    same = all(before[field] == value for field, value in values.items())
    changed = any(now[field] != value for field, value in values.items())
    return {field: patch for field, patch in inner.items() if patch} | (values if same and changed else {})
