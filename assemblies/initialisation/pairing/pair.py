"""The encoder-decoder that two models make: of decoder-only ones T5Gemma (arXiv 2504.06225, section 3.2) or T5Gemma 2."""

from typing import Any

from pairform.assemblies.families.tokens import encoder_tokens
from pairform.assemblies.initialisation.options import Options
from pairform.assemblies.initialisation.pairing import t5gemma2
from pairform.assemblies.initialisation.pairing.source_layers import (
    with_cross_attention,
    with_merged_attention,
    with_source_layers,
)
from pairform.assemblies.initialisation.pairing.t5gemma2 import of_gemma3
from pairform.assemblies.specs.depth_dependent import Move
from pairform.assemblies.specs.layer_patches import layers_of, with_layer_patches
from pairform.assemblies.specs.model import ModelSpec, StackSpec, VisionSpec
from pairform.assemblies.specs.shared import key_places
from pairform.assemblies.specs.stack import Override, shortest_cycle
from pairform.blocks.attention.mask_spec import AttentionFields, MaskSpec
from pairform.blocks.positions.score_biases import T5RelativePosition
from pairform.registry import Problem, SpecError, freeze, thaw


def pair(
    encoder: ModelSpec, decoder: ModelSpec, options: Options | None = None, vision: ModelSpec | None = None
) -> dict[str, Any]:
    """The document of an encoder-decoder: `encoder`'s stack, and `decoder`'s stack that reads it.

    A source's encoder keeps its masks; the stack of a decoder-only source loses its causal one. Vocabulary, tokens and head are
    the decoder's; the encoder keeps its own tokens if its padding differs. Vision is that of `vision`, else of the encoder's
    source. Two sources like Gemma 3 get T5Gemma 2's changes: merged attention, with a linear bridge if the widths differ, one
    embedding if the sizes allow it, and others.
    """
    options = options or Options()
    if decoder.head.name != "lm":
        found = f"a model with the head {decoder.head.name!r}"
        raise SpecError(Problem("decoder", found, "a language model", "Give a spec to say what the head should be."))
    sources = {"encoder": encoder, "decoder": decoder}
    gemma3 = all(of_gemma3(source, stack_of(source, part)[0]) for part, source in sources.items())
    merged = options.source_attention == "merged" or (options.source_attention == "auto" and gemma3)
    stacks = {part: source_stack(source, part, options) for part, source in sources.items()}
    vocabularies = {part: source.vocabulary_of(stack_of(source, part)[0]) for part, source in sources.items()}
    # images are an input of the encoder only
    stacks["decoder"].pop("vision", None)
    if vision is not None:
        stacks["encoder"]["vision"] = vision_of(vision)[1].document()
    head = decoder.head.document() | ({"tie": "decoder"} if decoder.head_tie else {})
    tied = False
    # T5Gemma 2's changes other than weights
    if merged and gemma3:
        vocabularies = {part: min(size, t5gemma2.VOCABULARY) for part, size in vocabularies.items()}
        for part, stack in stacks.items():
            stacks[part] = t5gemma2.adapted(stack, part, vocabularies[part])
            token = t5gemma2.end_of_image(stacks["encoder"].get("vision"), vocabularies[part])
            stacks[part]["embedding"] |= {} if token is None else {"end_of_image": token}
        # one embedding for both stacks if the two tables would have the same shape and options
        tables = {(vocabularies[part], stack["width"], freeze(stack["embedding"])) for part, stack in stacks.items()}
        tied = len(tables) == 1
    if tied and "tie" in head:
        head["tie"] = "encoder"
    if vocabularies["encoder"] != vocabularies["decoder"]:
        stacks["encoder"]["vocabulary"] = vocabularies["encoder"]
    # the decoder's attention to the encoder, and to which of its layers
    reading = with_merged_attention(stacks["decoder"]) if merged else with_cross_attention(stacks["decoder"])
    kept = move(encoder, "encoder", options)
    read = encoder.tokens_of(stack_of(encoder, "encoder")[0]).document()
    stacks["encoder"]["tokens"] = encoder_tokens(read, decoder.tokens.document())
    bridged = merged and stacks["encoder"]["width"] != stacks["decoder"]["width"]
    return {
        "assembly": "encoder_decoder",
        "vocabulary": vocabularies["decoder"],
        "tokens": decoder.tokens.document(),
        "encoder": stacks["encoder"] if "encoder" in encoder.stacks else bidirectional(stacks["encoder"]),
        "bridge": {"name": "linear" if bridged else "none"},
        "decoder": with_source_layers(reading, move(decoder, "decoder", options), kept.layers, kept.stack.depth),
        "tie_embeddings": tied,
        "head": head,
        "initializer_range": decoder.initializer_range,
    }


def stack_of(model: ModelSpec, part: str) -> tuple[str, StackSpec]:
    """The stack of a source that becomes `part`: the one of that name, or the only one."""
    name = part if part in model.stacks else next(iter(model.stacks))
    return name, model.stacks[name]


def move(model: ModelSpec, part: str, options: Options) -> Move:
    """The origin of the layers of a new model's stack: the kept layers of its source."""
    name, stack = stack_of(model, part)
    rule = options.layers(part)
    return Move(model, name, tuple(range(stack.depth) if rule is None else rule.kept(stack.depth, f"{part}_layers")))


def source_stack(model: ModelSpec, part: str, options: Options) -> dict[str, Any]:
    """The document of a source's stack with only the layers that are kept, each with its own spec."""
    _, stack = stack_of(model, part)
    document = stack.document()
    if options.layers(part) is not None:
        kept = list(move(model, part, options).layers)
        # the cycle counts layers of the source: written out for the kept ones, and shortened again
        patches = [thaw(stack.cycle[layer % len(stack.cycle)]) for layer in kept] if stack.cycle else []
        overrides = [moved for override in stack.overrides if (moved := kept_override(override, kept, stack.depth))]
        overrides += unshared_tables(stack, kept)
        check_kept_keys(stack, kept, part)
        document |= {"depth": len(kept), "cycle": shortest_cycle(patches), "overrides": overrides}
    if stack.embedding.name == "token":
        document["embedding"]["scale_given"] = True  # as T5Gemma treats inputs_embeds
    return document


def kept_override(override: Override, kept: list[int], depth: int) -> dict[str, Any] | None:
    """The override on those of its layers that are kept, by their new numbers."""
    layers = [new for new, old in enumerate(kept) if old in override.layers or old - depth in override.layers]
    return {"layers": layers, "patch": thaw(override.patch)} if layers else None


def unshared_tables(stack: StackSpec, kept: list[int]) -> list[dict[str, Any]]:
    """Overrides that give kept layers their own table of relative positions where the one that they shared is no longer the
    nearest before them: its layer is not kept, or another table is between."""
    made: list[dict[str, Any]] = []
    read: dict[str, int] = {}  # by branch, the old layer whose table the last of the kept ones reads
    for new, old in enumerate(kept):
        for name, branch in stack.layers[old].branches.items():
            if not isinstance(AttentionFields.of(branch).position, T5RelativePosition.Spec):
                continue
            owner = table_owner(stack, old, name)
            if owner != old and read.get(name) != owner:
                made.append({"layers": [new], "patch": {"branches": {name: {"position": {"shared": False}}}}})
            read[name] = owner
    return made


def check_kept_keys(stack: StackSpec, kept: list[int], part: str) -> None:
    """Check that each kept layer that shares keys still finds those that it was trained with.

    Raises:
        SpecError: their layer is not kept, or another one that has its own is between.
    """
    new = key_places([stack.layers[layer] for layer in kept], stack.width)
    for (index, name), (owner, _) in owners(stack).items():
        place = new.get((kept.index(index), name)) if index in kept else None
        if index in kept and (place is None or kept[place[0]] != owner):
            found = f"{kept} without layer {owner}, whose keys layer {index} shares in {name}"
            if owner in kept:
                found = f"{kept}, where layer {index} shares the keys of layer {kept[place[0]] if place else owner} in {name}"
            remedy = "Keep it, or leave out the layers that share its keys."
            raise SpecError(Problem(f"{part}_layers", found, f"layer {owner}, as in the source", remedy))


def owners(stack: StackSpec) -> dict[tuple[int, str], tuple[int, str]]:
    """The place whose keys each branch that shares keys attends to."""
    return {place: owner for place, owner in key_places(stack.layers, stack.width).items() if owner is not None}


def table_owner(stack: StackSpec, index: int, name: str) -> int:
    """The layer whose table the position of a branch reads: its own, or the nearest earlier layer with a table."""
    for number in reversed(range(index + 1)):
        position = AttentionFields.of(stack.layers[number].branches.get(name)).position
        if isinstance(position, T5RelativePosition.Spec) and not position.shared:
            return number
    return index


def bidirectional(stack: dict[str, Any]) -> dict[str, Any]:
    """A stack's document without causal masks. A window to the left alone becomes as wide to the right."""
    patches = []
    for layer in layers_of(stack):
        masks = {name: AttentionFields.of(branch).mask for name, branch in layer.branches.items()}
        patches.append(
            {"branches": {name: {"mask": bidirectional_mask(mask)} for name, mask in masks.items() if mask is not None}}
        )
    return with_layer_patches(stack, patches)


def bidirectional_mask(mask: MaskSpec) -> dict[str, Any]:
    """The patch that makes a mask bidirectional."""
    patch: dict[str, Any] = {"causal": False, "prefix": False}
    if mask.causal and mask.window is not None and mask.window[1] == 0:
        patch["window"] = [mask.window[0], mask.window[0]]
    return patch


def vision_of(model: ModelSpec) -> tuple[str, VisionSpec]:
    """The stack of a model that has vision, and its vision."""
    for part, stack in model.stacks.items():
        if stack.vision is not None:
            return part, stack.vision
    raise SpecError(Problem("vision", "a source that reads no pictures", "one with a vision tower, as multimodal Gemma 3"))
