"""The canonical form of a spec: equal for specs that build the same model, however they are written."""

from typing import Any

from pairform.assemblies.specs.model import LayerSpec, ModelSpec, StackSpec
from pairform.registry import difference


def differences(old: ModelSpec, new: ModelSpec) -> dict[str, tuple[Any, Any]]:
    """Where two specs build different models: JSON path -> (old, new)."""
    return difference(canonical_form(old), canonical_form(new))


def canonical_form(spec: ModelSpec) -> dict[str, Any]:
    """The spec with every layer and every default written out, and without what does not change results: kernels, the order of
    absent branches, frozen towers."""
    document = spec.document()
    document.pop("$schema", None)
    for name, stack in spec.stacks.items():
        document[name] = canonical_stack(stack, spec.vocabulary_of(name))
    document.pop("vocabulary")
    if spec.tie_embeddings and spec.head_tie is not None:
        document["head"]["tie"] = "encoder"  # both stacks have its table
    return document


def canonical_stack(stack: StackSpec, vocabulary: int | None) -> dict[str, Any]:
    document = stack.document()
    for field in ("layer", "cycle", "overrides"):
        document.pop(field)
    if stack.vision is not None:
        document["vision"]["tower"] = canonical_stack(stack.vision.tower, None)
        document["vision"].pop("frozen")
    if stack.layer_input is not None and stack.layer_input.table:
        document["layer_input"]["vocabulary"] = stack.layer_input.vocabulary or vocabulary
    return document | {
        "vocabulary": vocabulary,
        "final_norm": stack.norm.document(),
        "final_dropout": stack.dropout if stack.final_dropout is None else stack.final_dropout,
        "layers": [canonical_layer(layer, stack.width) for layer in stack.layers],
    }


def canonical_layer(layer: LayerSpec, width: int) -> dict[str, Any]:
    document = layer.document() | {"order": [group if len(group) > 1 else group[0] for group in layer.parallel_groups]}
    document["norms"] = {name: norm.document() for name in layer.present if (norm := layer.norm_of(name)) != layer.norm}
    for branch in document["branches"].values():
        branch.pop("kernel", None)
        if "qk_norm" not in branch:
            branch.pop("qk_norm_span", None)
        branch.pop("wide_output", None)  # how float16 is computed
        if "heads" in branch:
            branch["kv_heads"] = branch.get("kv_heads") or branch["heads"]
            branch["head_dim"] = branch.get("head_dim") or width // branch["heads"]
            branch["scale"] = branch.get("scale") or branch["head_dim"] ** -0.5
        mask = branch.get("mask", {})
        if mask.get("causal") and "window" in mask:
            # causality masks the right side in any case
            mask["window"] = [mask["window"][0], 0]
    return document
