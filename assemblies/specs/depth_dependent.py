"""Values that depend on a layer's number and on the depths of the stacks, for layers that move to another number or model.

DeepNorm's alpha and beta, the lambda of differential attention and the rates of dropped paths are such values, unless the spec
sets them. A layer whose weights move keeps the values that they were trained with: if its new position would change them, they
are written into its spec.
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
    """The origin of a stack's layers: layer i was layer `layers[i]` of the stack `part` of `model`."""

    model: ModelSpec
    part: str
    layers: tuple[int, ...]

    @property
    def stack(self) -> StackSpec:
        return self.model.stacks[self.part]


def with_moved_values(spec: ModelSpec, moves: Mapping[Part, Move]) -> ModelSpec:
    """`spec` with the values of its layers' origins written out where they differ. moves: by the new stack."""
    document = spec.document()
    for part, move in moves.items():
        stack = spec.stacks[part]
        patches: list[dict[str, Any]] = [{} for _ in stack.layers]
        for index, old in enumerate(move.layers[: stack.depth]):
            here, there = layer_sizes(spec, part, index), layer_sizes(move.model, move.part, old)
            patches[index] = moved_layer_patch(stack.layers[index], here, move.stack.layers[old], there)
        document[part] = with_layer_patches(document[part], patches)
    return spec if document == spec.document() else ModelSpec.read(document)


def layer_sizes(model: ModelSpec, part: str, index: int) -> Sizes:
    """The sizes for the blocks of one layer."""
    return replace(model.sizes(part), depth=model.stacks[part].depth, layer=index)


def moved_layer_patch(layer: LayerSpec, here: Sizes, origin: LayerSpec, there: Sizes) -> dict[str, Any]:
    """The patch that gives `layer` the values it would have in the position of `origin`, where both specs leave them out."""
    return changed_values(origin.sited(there), layer.sited(there), layer.sited(here))


def changed_values(before: Mapping[str, Any], then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """The values of `then` (the new layer in the old position) that equal the old layer's but not those in the new position."""
    shared = [field for field in then if field in before and field in now]
    nested = [field for field in shared if isinstance(then[field], Mapping)]
    inner = {field: changed_values(before[field], then[field], now[field]) for field in nested}
    values = {field: then[field] for field in shared if field not in inner}
    same = all(before[field] == value for field, value in values.items())
    changed = any(now[field] != value for field, value in values.items())
    return {field: patch for field, patch in inner.items() if patch} | (values if same and changed else {})
