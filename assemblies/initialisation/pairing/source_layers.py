"""Attention to the encoder in the layers of a decoder, and which of the encoder's layers they read."""

from collections.abc import Iterator, Sequence
from typing import Any

from pairform.assemblies.families.t5gemma.t5gemma import CROSS_FIELDS
from pairform.assemblies.initialisation.pairing.compatibility import CROSS, MERGED, OWN, self_attention_branch
from pairform.assemblies.specs.depth_dependent import Move, layer_sizes
from pairform.assemblies.specs.layer_patches import Document, layers_of, with_layer_patches
from pairform.assemblies.specs.model import LayerSpec, ModelSpec
from pairform.assemblies.specs.shared import key_places
from pairform.blocks.attention.mask_spec import AttentionFields
from pairform.registry import Problem, SpecError


def with_merged_attention(stack: Document) -> Document:
    """A decoder's document with merged attention in place of self-attention and cross-attention."""
    return with_layer_patches(
        stack, [{} if layer is None else merged_attention_patch(layer) for layer in reading_layers(stack)]
    )


def with_cross_attention(stack: Document) -> Document:
    """A decoder's document with cross-attention after self-attention, with its heads, and without position and window."""
    layers = layers_of(stack)
    owners = key_places(layers, stack["width"])
    patches = []
    for index, layer in enumerate(reading_layers(stack)):
        place = None if layer is None else owners.get((index, self_attention_branch(layer) or OWN))
        patches.append({} if layer is None else cross_attention_patch(layer, layer if place is None else layers[place[0]]))
    return with_layer_patches(stack, patches)


def reading_layers(stack: Document) -> list[LayerSpec | None]:
    """The layers, with None for those that will not read the source. If some read it already, only those do; otherwise all with
    attention."""
    layers = layers_of(stack)
    blocks = [list(layer.branches.values()) for layer in layers]
    reading = [any(branch.name in (CROSS, MERGED) for branch in branches) for branches in blocks]
    if not any(reading):
        reading = [any(AttentionFields.of(branch).mask is not None for branch in branches) for branches in blocks]
    if not any(reading):
        raise no_self_attention(layers[0])
    return [layer if reads else None for layer, reads in zip(layers, reading, strict=True)]


def no_self_attention(layer: LayerSpec) -> SpecError:
    found = {name: branch.name for name, branch in layer.branches.items()}
    return SpecError(Problem("decoder.layer.branches", f"{found}", f"{OWN}, to shape what reads the source"))


def merged_attention_patch(layer: LayerSpec) -> Document:
    """The patch that makes a layer's self-attention merged attention and removes its cross-attention."""
    own = self_attention_branch(layer)
    if own is None:
        raise no_self_attention(layer)
    crossing: dict[str, Any] = {name: None for name, branch in layer.branches.items() if branch.name == CROSS}
    return {"branches": {own: {"name": MERGED}, **crossing}}


def cross_attention_patch(layer: LayerSpec, keys: LayerSpec) -> Document:
    """The patch that gives a layer cross-attention, if it has none, after the parallel group of its self-attention.

    keys: the layer whose keys the self-attention reads: this one, or an earlier one that it shares them with.
    """
    if any(branch.name == CROSS for branch in layer.branches.values()):
        return {}
    own = self_attention_branch(layer)
    if own is None or CROSS in layer.branches:
        raise no_self_attention(layer)
    document = layer.document()
    kept = (*CROSS_FIELDS, "qk_norm", "qk_norm_span")
    shared = {field: value for field, value in document["branches"][own].items() if field in kept}
    of_values = keys.document()["branches"][own]
    shared |= {field: of_values[field] for field in ("value_norm", "keys_as_values") if field in of_values}
    order = document["order"]
    groups = [[group] if isinstance(group, str) else group for group in order]
    if not any(CROSS in group for group in groups):
        before = next(number for number, group in enumerate(groups) if own in group)
        order = [*order[: before + 1], CROSS, *order[before + 1 :]]
    return {"order": order, "branches": {own: {"name": OWN}, CROSS: {"name": CROSS, **shared}}}


def with_source_layers(
    stack: Document, move: Move, encoder: Sequence[int | None], depth: int, *, strict: bool = True
) -> Document:
    """A decoder's document whose cross-attention reads the same encoder layers as in its source.

    move:    the origin of the decoder's layers.
    encoder: the numbers that the encoder's layers had in their source, of `depth` layers; None for new ones.
    strict:  whether reading a layer that is not kept is an error; else the spec decides.
    """
    if move.model.encoder is None:
        return stack
    patches: list[Document] = []
    for index, layer in enumerate(layers_of(stack)):
        found: Document = {}
        for name, branch in layer.branches.items():
            if index < len(move.layers) and (number := read_layer(move, index, name, branch, depth)) is not None:
                if number in encoder:
                    found |= source_layer_patch(name, branch, index, encoder.index(number), fits=len(encoder) == stack["depth"])
                elif strict:
                    where = f"decoder.layers[{move.layers[index]}].branches.{name}.source_layer"
                    told = f"layer {number} of the encoder, which is not kept"
                    remedy = "Keep it, or give a spec that says what is read instead."
                    raise SpecError(Problem(where, told, f"one of those that are: {list(encoder)}", remedy))
        patches.append({"branches": found} if found else {})
    return with_layer_patches(stack, patches)


def read_layer(move: Move, index: int, name: str, branch: Any, depth: int) -> int | None:
    """The encoder layer, of `depth`, that a branch read in its source, if its spec is unchanged. None: the encoder's output."""
    old = move.layers[index]
    written = AttentionFields.of(move.stack.layers[old].branches.get(name)).source_layer
    if written in ("last", -1) or AttentionFields.of(branch).source_layer != written:
        return None
    if isinstance(written, str):
        return old
    return written % depth if -depth <= written < depth else written


def source_layer_patch(name: str, branch: Any, index: int, number: int, *, fits: bool) -> Document:
    """The patch, if needed, with which a branch of layer `index` reads encoder layer `number`."""
    written = branch.source_layer
    same = fits and index == number if written == "matching" else written == number
    return {} if same else {name: {"source_layer": number}}


def changed_source_layers(target: ModelSpec, move: Move, encoder: Move) -> Iterator[tuple[str, str, str]]:
    """Where cross-attention has the same spec as in its source but reads another layer: path, old and new layer."""
    if move.model.encoder is None or target.decoder is None:
        return
    for index, layer in enumerate(target.decoder.layers[: len(move.layers)]):
        for name, branch in layer.branches.items():
            old = read_layer(move, index, name, branch, encoder.stack.depth)
            if old is None:
                continue
            reader: Any = branch
            new = reader.reads(layer_sizes(target, "decoder", index))
            now = encoder.layers[new] if new < len(encoder.layers) else None
            if now != old:
                after = "a new layer" if now is None else f"layer {now} of the source's encoder"
                yield f"decoder.layers[{index}].branches.{name}.source_layer", f"layer {old} of the source's encoder", after
