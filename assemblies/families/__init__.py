"""Checkpoint families that pairform reads and writes."""

from collections.abc import Mapping
from typing import Any

from pairform.assemblies.families.gemma.gemma2 import GEMMA2
from pairform.assemblies.families.gemma.gemma3 import GEMMA3
from pairform.assemblies.families.gemma.gemma3_text import GEMMA3_TEXT
from pairform.assemblies.families.llama.llama import LLAMA, MISTRAL, QWEN2, QWEN3
from pairform.assemblies.families.t5.t5 import MT5, T5
from pairform.assemblies.families.t5gemma.t5gemma import T5GEMMA
from pairform.assemblies.families.t5gemma.t5gemma2 import T5GEMMA2
from pairform.assemblies.families.t5gemma.t5gemma2_encoder import T5GEMMA2_ENCODER
from pairform.assemblies.families.table import Family
from pairform.assemblies.specs.model import ModelSpec, StackSpec
from pairform.registry import Problem, SpecError, shorten

ALL = (GEMMA2, GEMMA3_TEXT, GEMMA3, T5GEMMA, T5GEMMA2, T5GEMMA2_ENCODER, LLAMA, MISTRAL, QWEN2, QWEN3, T5, MT5)
FAMILIES: Mapping[str, Family] = {family.model_type: family for family in ALL}


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
    """The family that comes nearest; whether it can say all of `spec` shows in its config. mT5's models are written as T5's,
    which compute the same."""
    attentions = [layer.branches.get("self_attention") for layer in spec.last.layers]
    normed = any(getattr(attention, "qk_norm", None) is not None for attention in attentions)
    if spec.assembly == "decoder_only":
        if spec.last.vision is not None:
            return GEMMA3
        if spec.last.layers[0].placement == "pre":
            return nearest_llama(spec.last)
        positions = {getattr(attention, "position", None) for attention in attentions}
        return GEMMA3_TEXT if normed or len(positions) > 1 else GEMMA2
    if getattr(getattr(attentions[0], "position", None), "name", None) == "t5_relative":
        return T5
    if spec.assembly == "encoder_only":
        return T5GEMMA2_ENCODER if normed or spec.last.vision is not None else T5GEMMA
    merged = any(attention is not None and attention.name == "merged_attention" for attention in attentions)
    return T5GEMMA2 if merged else T5GEMMA


def nearest_llama(stack: StackSpec) -> Family:
    """The family of a decoder with norms before its branches alone: Llama's where it can say all, as more programs read it."""
    attentions = [layer.branches.get("self_attention") for layer in stack.layers]
    if any(getattr(attention, "qk_norm", None) is not None for attention in attentions):
        return QWEN3
    if any(getattr(attention, "bias", False) == "qkv" for attention in attentions):
        return QWEN2
    windowed = any(getattr(getattr(attention, "mask", None), "window", None) is not None for attention in attentions)
    divides = stack.width % getattr(attentions[0], "heads", 1) == 0
    return MISTRAL if windowed or not divides else LLAMA
