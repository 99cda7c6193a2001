"""The encoder-decoder that two decoder-only models make (T5Gemma, arXiv 2504.06225, section 3.2)."""

from typing import Any

from pairform.assemblies.families.t5gemma import CROSS_FIELDS
from pairform.assemblies.initialisation.options import Options
from pairform.assemblies.specs import ModelSpec, StackSpec
from pairform.assemblies.stack_spec import Override, shortest_cycle
from pairform.registry import Problem, SpecError, merge_patch, thaw


def pair(encoder: ModelSpec, decoder: ModelSpec, options: Options | None = None) -> ModelSpec:
    """`encoder`'s stack without its causal mask, and `decoder`'s stack with cross-attention to it.

    Vocabulary, tokens and head are the decoder's.
    """
    options = options or Options()
    if decoder.head.name != "lm":
        found = f"a model with the head {decoder.head.name!r}"
        raise SpecError(Problem("decoder", found, "a language model", "Give a spec to say what the head should be."))
    return ModelSpec.read(
        {
            "assembly": "encoder_decoder",
            "vocabulary": decoder.vocabulary,
            "tokens": decoder.tokens.document(),
            "encoder": with_vocabulary(bidirectional(source_stack(encoder, "encoder", options)), encoder, decoder),
            "decoder": with_cross_attention(source_stack(decoder, "decoder", options)),
            "head": decoder.head.document() | ({"tie": "decoder"} if getattr(decoder.head, "tie", None) else {}),
            "initializer_range": decoder.initializer_range,
        }
    )


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
        document |= {"depth": len(kept), "cycle": shortest_cycle(turns), "overrides": overrides}
    if stack.embedding.name == "token":
        document["embedding"]["scale_given"] = True  # as T5Gemma treats inputs_embeds
    return document


def kept_override(override: Override, kept: list[int], depth: int) -> dict[str, Any] | None:
    """The override on those of its layers that are kept, by their new numbers."""
    layers = [new for new, old in enumerate(kept) if old in override.layers or old - depth in override.layers]
    return {"layers": layers, "patch": thaw(override.patch)} if layers else None


def bidirectional(stack: dict[str, Any]) -> dict[str, Any]:
    causal = {"layer": {"branches": {"self_attention": {"mask": {"causal": False}}}}}
    patched: dict[str, Any] = merge_patch(stack, causal)
    return patched


def with_vocabulary(stack: dict[str, Any], own: ModelSpec, other: ModelSpec) -> dict[str, Any]:
    part, _ = stack_of(own, "encoder")
    differs = own.vocabulary_of(part) != other.vocabulary
    return stack | ({"vocabulary": own.vocabulary_of(part)} if differs else {})


def with_cross_attention(stack: dict[str, Any]) -> dict[str, Any]:
    """Cross-attention behind self-attention, with its heads; it has neither position nor window."""
    layer = stack["layer"]
    own = layer["branches"].get("self_attention", {})
    if own.get("name") != "self_attention":
        raise SpecError(
            Problem("decoder.layer.branches", f"{list(layer['branches'])}", "self_attention, to shape cross-attention")
        )
    shared = {field: own[field] for field in CROSS_FIELDS if field in own}
    order = list(layer["order"])
    if "cross_attention" not in order:
        order.insert(order.index("self_attention") + 1, "cross_attention")
    patch = {"layer": {"order": order, "branches": {"cross_attention": {"name": "cross_attention", **shared}}}}
    if "cross_attention" in layer["branches"]:
        return stack
    patched: dict[str, Any] = merge_patch(stack, patch)
    return patched
