"""How the layers of a decoder come to read a source, and which of the encoder's layers they read."""

from collections.abc import Iterator, Sequence
from typing import Any

from pairform.assemblies.families.t5gemma.t5gemma import CROSS_FIELDS
from pairform.assemblies.initialisation.pairing.compatibility import CROSS, MERGED, OWN, own_attention
from pairform.assemblies.specs.depth_dependent import Move, place
from pairform.assemblies.specs.layer_patches import Document, layers_of, with_layer_patches
from pairform.assemblies.specs.model import LayerSpec, ModelSpec
from pairform.blocks.attention.mask_spec import AttentionFields
from pairform.registry import Problem, SpecError


def with_merged_attention(stack: Document) -> Document:
    """Self-attention that reads the source too, in place of any cross-attention."""
    return with_layer_patches(stack, [{} if layer is None else merging(layer) for layer in readers(stack)])


def with_cross_attention(stack: Document) -> Document:
    """Cross-attention behind self-attention, with its heads; it has neither position nor window."""
    return with_layer_patches(stack, [{} if layer is None else parting(layer) for layer in readers(stack)])


def readers(stack: Document) -> list[LayerSpec | None]:
    """The layers that are to read the source, in their places: where some do already those, else all with attention. The others
    are None."""
    layers = layers_of(stack)
    blocks = [list(layer.branches.values()) for layer in layers]
    reading = [any(branch.name in (CROSS, MERGED) for branch in branches) for branches in blocks]
    if not any(reading):
        reading = [any(AttentionFields.of(branch).mask is not None for branch in branches) for branches in blocks]
    if not any(reading):
        raise unfit(layers[0])
    return [layer if reads else None for layer, reads in zip(layers, reading, strict=True)]


def unfit(layer: LayerSpec) -> SpecError:
    found = {name: branch.name for name, branch in layer.branches.items()}
    return SpecError(Problem("decoder.layer.branches", f"{found}", f"{OWN}, to shape what reads the source"))


def merging(layer: LayerSpec) -> Document:
    """The patch that merges a layer's attention to the source with its self-attention."""
    own = own_attention(layer)
    if own is None:
        raise unfit(layer)
    crossing: dict[str, Any] = {name: None for name, branch in layer.branches.items() if branch.name == CROSS}
    return {"branches": {own: {"name": MERGED}, **crossing}}


def parting(layer: LayerSpec) -> Document:
    """The patch that gives a layer cross-attention, if it has none: in a turn of its own behind that of its self-attention."""
    if any(branch.name == CROSS for branch in layer.branches.values()):
        return {}
    own = own_attention(layer)
    if own is None or CROSS in layer.branches:
        raise unfit(layer)
    document = layer.document()
    shared = {field: value for field, value in document["branches"][own].items() if field in (*CROSS_FIELDS, "qk_norm")}
    order = document["order"]
    turns = [[turn] if isinstance(turn, str) else turn for turn in order]
    if not any(CROSS in turn for turn in turns):
        before = next(number for number, turn in enumerate(turns) if own in turn)
        order = [*order[: before + 1], CROSS, *order[before + 1 :]]
    return {"order": order, "branches": {own: {"name": OWN}, CROSS: {"name": CROSS, **shared}}}


def with_source_layers(
    stack: Document, move: Move, encoder: Sequence[int | None], depth: int, *, strict: bool = True
) -> Document:
    """A decoder's document whose cross-attention reads those of the encoder's layers that it read by number in its source.

    move:    where the decoder's layers come from.
    encoder: the old numbers of the encoder's layers, of `depth` layers; None for new ones. A layer that is read and not kept is
             an error if `strict`, and else left to the spec.
    """
    if move.model.encoder is None:
        return stack
    patches: list[Document] = []
    for index, layer in enumerate(layers_of(stack)):
        found: Document = {}
        for name, branch in layer.branches.items():
            if index < len(move.layers) and (number := number_read(move, index, name, branch, depth)) is not None:
                if number in encoder:
                    found |= renumbered(name, branch, index, encoder.index(number), fits=len(encoder) == stack["depth"])
                elif strict:
                    where = f"decoder.layers[{move.layers[index]}].branches.{name}.source_layer"
                    told = f"layer {number} of the encoder, which is not kept"
                    remedy = "Keep it, or give a spec that says what is read instead."
                    raise SpecError(Problem(where, told, f"one of those that are: {list(encoder)}", remedy))
        patches.append({"branches": found} if found else {})
    return with_layer_patches(stack, patches)


def number_read(move: Move, index: int, name: str, branch: Any, depth: int) -> int | None:
    """Which of an encoder's `depth` layers a branch read before it moved, if it still says the same; None: its output."""
    old = move.layers[index]
    written = AttentionFields.of(move.stack.layers[old].branches.get(name)).source_layer
    if written in ("last", -1) or AttentionFields.of(branch).source_layer != written:
        return None
    if isinstance(written, str):
        return old
    return written % depth if -depth <= written < depth else written


def renumbered(name: str, branch: Any, index: int, number: int, *, fits: bool) -> Document:
    """The patch, if one is needed, by which a branch of layer `index` reads `number`."""
    written = branch.source_layer
    same = fits and index == number if written == "matching" else written == number
    return {} if same else {name: {"source_layer": number}}


def other_sources(target: ModelSpec, move: Move, encoder: Move) -> Iterator[tuple[str, str, str]]:
    """Where cross-attention says what it said in its source, and yet reads another layer: path, old and new layer."""
    if move.model.encoder is None or target.decoder is None:
        return
    for index, layer in enumerate(target.decoder.layers[: len(move.layers)]):
        for name, branch in layer.branches.items():
            old = number_read(move, index, name, branch, encoder.stack.depth)
            if old is None:
                continue
            reader: Any = branch
            new = reader.reads(place(target, "decoder", index))
            now = encoder.layers[new] if new < len(encoder.layers) else None
            if now != old:
                after = "a new layer" if now is None else f"layer {now} of the source's encoder"
                yield f"decoder.layers[{index}].branches.{name}.source_layer", f"layer {old} of the source's encoder", after
