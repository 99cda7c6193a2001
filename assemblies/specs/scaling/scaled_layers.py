"""The layers of a scaled stack: which layer each comes from, and the template, cycle and overrides that give them."""

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from pairform.assemblies.specs.layer import LayerSpec
from pairform.assemblies.specs.layer_patches import layers_of, with_layer_patches
from pairform.assemblies.specs.shared import key_places
from pairform.assemblies.specs.stack import StackSpec
from pairform.blocks.attention.mask_spec import AttentionFields
from pairform.blocks.spec_fields import TableFields
from pairform.registry import SpecError, merge_patch, patch_at, thaw

Document = dict[str, Any]
Scale = Callable[[LayerSpec], Document]
"""The merge patch that scales a layer."""


def sources(depth: int, new: int, period: int) -> list[int]:
    """The old layer that each new one comes from.

    Layers keep their place in the cycle and, as far as that allows, their relative depth: the first comes from the first and
    the last from the last. If there are fewer layers than the cycle has, they are chosen from it evenly, its last included.
    """
    if new < period:
        return [-(-(layer + 1) * period // new) - 1 for layer in range(new)]
    ideals = [Fraction(layer * (depth - 1), max(1, new - 1)) for layer in range(new)]
    return [min(range(layer % period, depth, period), key=lambda old: abs(old - ideal)) for layer, ideal in enumerate(ideals)]


def with_scaled_layers(stack: StackSpec, document: Document, depth: int, width: int, scale: Scale) -> Document:
    """The document of a stack with `depth` scaled layers of a new `width`.

    The template, the cycle and the overrides keep their form, so that patches on them mean the same as before.
    """
    cycle = list(stack.cycle) if depth == stack.depth else list(stack.cycle[: stack.depth])
    origin = list(range(depth)) if depth == stack.depth else sources(stack.depth, depth, max(1, len(cycle)))
    patches = {id(layer): scale(layer) for layer in stack.layers}
    kinds = {id(layer): patched(layer, patches[id(layer)]) for layer in stack.layers}
    wanted = with_own_keys([kinds[id(stack.layers[old])] for old in origin], width)
    made = document | {"depth": depth, "layer": patched(stack.layer, scale(stack.layer)).document()}
    made["cycle"] = [scaled_like(patch, scale_on(stack.layer, patch, scale)) for patch in cycle]
    if depth != stack.depth and depth < len(cycle):
        made["cycle"] = [made["cycle"][old] for old in origin]
    made["overrides"] = []
    for override in stack.overrides:
        own = {layer % stack.depth for layer in override.layers}
        layers: Sequence[int] = [new for new, old in enumerate(origin) if old in own]
        if layers and all(layer < 0 for layer in override.layers):
            layers = [layer - depth for layer in layers]
        patch = patches[id(stack.layers[origin[layers[0]]])] if layers else {}
        if depth == stack.depth:
            layers = override.layers
        if layers or depth == stack.depth:
            made["overrides"].append({"layers": list(layers), "patch": scaled_like(override.patch, patch)})
    now = layers_of(made)
    return with_layer_patches(
        made, [patch_between(old.document(), new.document()) for old, new in zip(now, wanted, strict=True)]
    )


def patched(layer: LayerSpec, patch: Mapping[str, Any]) -> LayerSpec:
    return LayerSpec.read(merge_patch(layer.document(), patch, LayerSpec)) if patch else layer


def scale_on(template: LayerSpec, patch: Mapping[str, Any], scale: Scale) -> Document:
    """The patch that scales the layer that an entry of the cycle gives."""
    try:
        return scale(patched(template, thaw(patch)))
    except SpecError:  # an entry that is valid only with an override
        return {}


def scaled_like(patch: Mapping[str, Any], scaled: Mapping[str, Any]) -> Document:
    """A patch with the values that `scaled` has, in the fields that it sets."""
    made: Document = thaw(patch)
    for field, new in scaled.items():
        if made.get(field) is not None:
            made[field] = scaled_like(made[field], new) if isinstance(new, Mapping) else new
    return made


def patch_between(old: Mapping[str, Any], new: Mapping[str, Any]) -> Document:
    """The merge patch from one document of a layer to another."""
    patch: Document = {}
    for field in {**old, **new}:
        before, after = old.get(field), new.get(field)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            if inner := patch_between(before, after):
                patch[field] = inner
        elif before != after:
            patch[field] = after
    return patch


def with_own_keys(layers: Sequence[LayerSpec], width: int) -> list[LayerSpec]:
    """Layers with keys and tables of their own where no earlier layer is left to share them with."""
    alone = [(place, "share_keys") for place, shared in key_places(layers, width).items() if shared is None]
    tables: set[tuple[str, str]] = set()
    for index, layer in enumerate(layers):
        for name in layer.present:
            position = TableFields.of(AttentionFields.of(layer.branches[name]).position)
            if position.buckets and position.shared and (name, position.name) not in tables:
                alone.append(((index, name), "position.shared"))
            if position.buckets:
                tables.add((name, position.name))
    made = list(layers)
    for (index, name), field in alone:
        made[index] = patched(made[index], patch_at(f"branches.{name}.{field}", False))
    return made
