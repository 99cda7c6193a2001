"""A block in a few words, for a diagram: the fields that differ from their defaults."""

from collections.abc import Iterator, Mapping
from typing import Any

from pairform.blocks.attention.mask_spec import AttentionFields, MaskSpec
from pairform.registry import BlockSpec, Spec, difference

QUIET = {"name", "kernel", "eps", "dropout", "scale_given", "source_layer"}
"""Fields that do not change a block's shape or are drawn elsewhere: shown only where two models differ."""
HEADS = {"heads", "kv_heads", "head_dim", "scale"}


def phrases(spec: Spec) -> Iterator[str]:
    """The fields that differ from their defaults, related ones in one phrase."""
    fields = {key: value for key, value in own(spec).items() if key not in QUIET}
    attention = AttentionFields.of(spec) if isinstance(spec, BlockSpec) else AttentionFields.of(None)
    if "heads" in type(spec).model_fields:
        yield heads(attention)
        fields = {key: value for key, value in fields.items() if key not in HEADS}
    if attention.mask is not None:
        yield from mask(attention.mask)
        fields.pop("mask", None)
    for key, value in fields.items():
        yield phrase(key, value)


def own(spec: Spec) -> dict[str, Any]:
    """The fields of a spec that differ from their defaults."""
    fields = type(spec).model_fields
    return {key: value for key, value in spec if value != fields[key].get_default(call_default_factory=True)}


def heads(spec: AttentionFields) -> str:
    found = f"{spec.heads} heads" + (f" of {spec.head_dim}" if spec.head_dim else "")
    groups = spec.kv_heads or spec.heads
    return found if groups == spec.heads else f"{found}, {groups} for keys"


def mask(spec: MaskSpec) -> Iterator[str]:
    yield "causal" if spec.causal else "both directions"
    if spec.window and spec.causal:
        yield f"window {spec.window[0] + 1:,}"
    elif spec.window:
        yield f"window {spec.window[0]:,} left, {spec.window[1]:,} right"
    yield from (phrase(key, value) for key, value in own(spec).items() if key not in ("causal", "window"))


def phrase(key: str, value: Any) -> str:
    """A field and its value. A nested block is given by its name and its fields."""
    words = key.replace("_", " ")
    if value is True:
        return words
    if isinstance(value, Spec):
        inner = [dict(value).get("name", ""), *(phrase(key, item) for key, item in own(value).items() if key not in QUIET)]
        named = " ".join(filter(None, inner))
        return named if key == "position" else f"{words} {named}"
    return f"tied to the {value}'s embedding" if key == "tie" else f"{words} {inline(value)}"


def inline(value: Any) -> str:
    """A value of a document."""
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    if isinstance(value, int | float):
        return f"{int(value):,}" if value == int(value) else f"{value:.6g}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(inline, value)) + "]"
    if isinstance(value, Mapping):
        return str(value.get("name")) if "name" in value else ", ".join(f"{key} {inline(item)}" for key, item in value.items())
    return str(value)


def changes(old: Any, new: Any) -> list[str]:
    """The differences of two documents, as `kv heads 8 → 1`."""
    return [
        f"{where.replace('_', ' ')} {inline(before)} → {inline(after)}"
        for where, (before, after) in difference(old, new).items()
    ]
