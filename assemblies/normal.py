"""The normal form of a spec: what it builds, whichever way it was written."""

from typing import Any

from pairform.assemblies.specs import LayerSpec, ModelSpec, StackSpec
from pairform.registry import difference


def differences(old: ModelSpec, new: ModelSpec) -> dict[str, tuple[Any, Any]]:
    """Where two specs build different models: JSON path -> (old, new)."""
    return difference(normal_form(old), normal_form(new))


def normal_form(spec: ModelSpec) -> dict[str, Any]:
    """The spec with every layer written out, and without what changes no number: kernels, places kept for absent branches."""
    document = spec.document()
    document.pop("$schema", None)
    for name, stack in spec.stacks.items():
        document[name] = normal_stack(stack, spec.vocabulary_of(name))
    document.pop("vocabulary")
    return document


def normal_stack(stack: StackSpec, vocabulary: int) -> dict[str, Any]:
    document = stack.document()
    for field in ("layer", "cycle", "overrides"):
        document.pop(field)
    return document | {
        "vocabulary": vocabulary,
        "final_norm": stack.norm.document(),
        "layers": [normal_layer(layer) for layer in stack.layers],
    }


def normal_layer(layer: LayerSpec) -> dict[str, Any]:
    document = layer.document() | {"order": layer.present}
    for branch in document["branches"].values():
        branch.pop("kernel", None)
        mask = branch.get("mask", {})
        if mask.get("causal") and "window" in mask:
            mask["window"] = [mask["window"][0], 0]
    return document
