"""Checkpoint families that pairform reads and writes."""

from collections.abc import Mapping
from typing import Any

from pairform.assemblies.families.gemma2 import GEMMA2
from pairform.assemblies.families.gemma3 import GEMMA3
from pairform.assemblies.families.gemma3_text import GEMMA3_TEXT
from pairform.assemblies.families.t5gemma import T5GEMMA
from pairform.assemblies.families.table import Family
from pairform.assemblies.specs import ModelSpec
from pairform.registry import Problem, SpecError, shorten

FAMILIES: Mapping[str, Family] = {family.model_type: family for family in (GEMMA2, GEMMA3_TEXT, GEMMA3, T5GEMMA)}


def family_of_config(config: Mapping[str, Any]) -> Family:
    """The family that wrote a config.json."""
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        found = "nothing" if model_type is None else shorten(model_type)
        raise SpecError(Problem("model_type", found, f"one of {', '.join(FAMILIES)}"))
    return FAMILIES[model_type]


def family_of_spec(spec: ModelSpec) -> tuple[Family, dict[str, Any]]:
    """The family that can store `spec`, and its config.json; a `SpecError` says why none can."""
    family = nearest_family(spec)
    return family, family.config(spec)


def nearest_family(spec: ModelSpec) -> Family:
    """The family that comes nearest; whether it can say all of `spec` shows in its config."""
    attentions = [layer.branches.get("self_attention") for layer in spec.last.layers]
    if spec.assembly == "decoder_only":
        positions = {getattr(attention, "position", None) for attention in attentions}
        normed = any(getattr(attention, "qk_norm", None) is not None for attention in attentions)
        return GEMMA3 if spec.last.vision is not None else GEMMA3_TEXT if normed or len(positions) > 1 else GEMMA2
    return T5GEMMA
