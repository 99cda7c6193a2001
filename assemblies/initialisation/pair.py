"""The encoder-decoder that two decoder-only models make: T5Gemma (arXiv 2504.06225, section 3.2) or T5Gemma 2."""

from typing import Any

from pairform.assemblies.families.t5gemma import CROSS_FIELDS
from pairform.assemblies.families.tokens import encoder_tokens
from pairform.assemblies.initialisation import t5gemma2
from pairform.assemblies.initialisation.options import Options
from pairform.assemblies.initialisation.t5gemma2 import OWN, of_gemma3
from pairform.assemblies.specs import ModelSpec, StackSpec, VisionSpec
from pairform.assemblies.stack_spec import Override, shortest_cycle
from pairform.registry import Problem, SpecError, freeze, merge_patch, thaw


def pair(
    encoder: ModelSpec, decoder: ModelSpec, options: Options | None = None, vision: ModelSpec | None = None
) -> dict[str, Any]:
    """The document of `encoder`'s stack without its causal mask beside `decoder`'s stack that reads it.

    Vocabulary, tokens and head are the decoder's; the encoder keeps its own tokens where its padding is another. Pictures are
    read as in `vision`, or as in the encoder's source. Two sources of Gemma 3's kind get what T5Gemma 2 has: merged attention,
    one embedding where the sizes allow it, and its other edits.
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
    stacks["decoder"].pop("vision", None)
    if vision is not None:
        stacks["encoder"]["vision"] = vision_of(vision)[1].document()
    head = decoder.head.document() | ({"tie": "decoder"} if getattr(decoder.head, "tie", None) else {})
    tied = False
    if merged and gemma3:
        vocabularies = {part: min(size, t5gemma2.VOCABULARY) for part, size in vocabularies.items()}
        for part, stack in stacks.items():
            stacks[part] = t5gemma2.adapted(stack, part, vocabularies[part])
            token = t5gemma2.end_of_image(stacks["encoder"].get("vision"), vocabularies[part])
            stacks[part]["embedding"] |= {} if token is None else {"end_of_image": token}
        tables = {(vocabularies[part], stack["width"], freeze(stack["embedding"])) for part, stack in stacks.items()}
        tied = len(tables) == 1
    if tied and "tie" in head:
        head["tie"] = "encoder"
    if vocabularies["encoder"] != vocabularies["decoder"]:
        stacks["encoder"]["vocabulary"] = vocabularies["encoder"]
    read = encoder.tokens_of(stack_of(encoder, "encoder")[0]).document()
    stacks["encoder"]["tokens"] = encoder_tokens(read, decoder.tokens.document())
    return {
        "assembly": "encoder_decoder",
        "vocabulary": vocabularies["decoder"],
        "tokens": decoder.tokens.document(),
        "encoder": bidirectional(stacks["encoder"]),
        "decoder": with_merged_attention(stacks["decoder"]) if merged else with_cross_attention(stacks["decoder"]),
        "tie_embeddings": tied,
        "head": head,
        "initializer_range": decoder.initializer_range,
    }


def stack_of(model: ModelSpec, part: str) -> tuple[str, StackSpec]:
    """The stack of a source that becomes `part`: the same part, or the only one it has."""
    name = part if part in model.stacks else next(iter(model.stacks))
    return name, model.stacks[name]


def source_stack(model: ModelSpec, part: str, options: Options) -> dict[str, Any]:
    """The document of a source's stack, with only the layers that are kept; each keeps its own kind."""
    _, stack = stack_of(model, part)
    document = stack.document()
    rule = options.layers(part)
    if rule is not None:
        kept = rule.kept(stack.depth, f"{part}_layers")
        turns = [thaw(stack.cycle[layer % len(stack.cycle)]) for layer in kept] if stack.cycle else []
        overrides = [moved for override in stack.overrides if (moved := kept_override(override, kept, stack.depth))]
        overrides += own_tables(stack, kept)
        document |= {"depth": len(kept), "cycle": shortest_cycle(turns), "overrides": overrides}
    if stack.embedding.name == "token":
        document["embedding"]["scale_given"] = True  # as T5Gemma treats inputs_embeds
    return document


def kept_override(override: Override, kept: list[int], depth: int) -> dict[str, Any] | None:
    """The override on those of its layers that are kept, by their new numbers."""
    layers = [new for new, old in enumerate(kept) if old in override.layers or old - depth in override.layers]
    return {"layers": layers, "patch": thaw(override.patch)} if layers else None


def own_tables(stack: StackSpec, kept: list[int]) -> list[dict[str, Any]]:
    """Overrides by which the first layers that are kept have the tables of positions that lay in layers that are not."""
    made: list[dict[str, Any]] = []
    given: set[str] = set()
    for new, old in enumerate(kept):
        for name, branch in stack.layers[old].branches.items():
            shared = getattr(getattr(branch, "position", None), "shared", None)
            if shared and name not in given:
                made.append({"layers": [new], "patch": {"branches": {name: {"position": {"shared": False}}}}})
            if shared is not None:
                given.add(name)
    return made


def bidirectional(stack: dict[str, Any]) -> dict[str, Any]:
    causal = {"layer": {"branches": {"self_attention": {"mask": {"causal": False, "prefix": False}}}}}
    patched: dict[str, Any] = merge_patch(stack, causal)
    return patched


def vision_of(model: ModelSpec) -> tuple[str, VisionSpec]:
    """The stack of a model that reads pictures, and how it does."""
    for part, stack in model.stacks.items():
        if stack.vision is not None:
            return part, stack.vision
    raise SpecError(Problem("vision", "a source that reads no pictures", "one with a vision tower, as multimodal Gemma 3"))


def with_merged_attention(stack: dict[str, Any]) -> dict[str, Any]:
    """Self-attention that reads the source too, in place of any cross-attention."""
    own_attention(stack)
    patch = {"layer": {"branches": {OWN: {"name": "merged_attention"}, "cross_attention": None}}}
    patched: dict[str, Any] = merge_patch(stack, patch)
    return patched


def own_attention(stack: dict[str, Any]) -> dict[str, Any]:
    """The self-attention of a decoder's layers."""
    branches = stack["layer"]["branches"]
    own: dict[str, Any] = branches.get(OWN, {})
    if own.get("name") not in ("self_attention", "merged_attention"):
        raise SpecError(Problem("decoder.layer.branches", f"{list(branches)}", f"{OWN}, to shape what reads the source"))
    return own


def with_cross_attention(stack: dict[str, Any]) -> dict[str, Any]:
    """Cross-attention behind self-attention, with its heads; it has neither position nor window."""
    layer, own = stack["layer"], own_attention(stack)
    shared = {field: own[field] for field in (*CROSS_FIELDS, "qk_norm") if field in own}
    order = list(layer["order"])
    if "cross_attention" not in order:
        order.insert(order.index(OWN) + 1, "cross_attention")
    branches = {OWN: {"name": "self_attention"}, "cross_attention": {"name": "cross_attention", **shared}}
    patch = {"layer": {"order": order, "branches": branches}}
    if "cross_attention" in layer["branches"]:
        return stack
    patched: dict[str, Any] = merge_patch(stack, patch)
    return patched
