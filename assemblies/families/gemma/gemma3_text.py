"""Gemma 3 without pictures (arXiv 2503.19786) in transformers' files."""

from collections.abc import Mapping
from typing import Any

from pairform.assemblies.families.config import HeadConfig, checked
from pairform.assemblies.families.family import Family
from pairform.assemblies.families.gemma.gemma2 import NAMES, causal
from pairform.assemblies.families.gemma.gemma3_stack import Gemma3StackConfig, Reach, stack_config, stack_document
from pairform.assemblies.families.heads import decoder_only, head_config
from pairform.assemblies.families.tokens import tokens_config
from pairform.assemblies.specs.model import ModelSpec
from pairform.blocks.spec_fields import HeadSpec

ARCHITECTURES = {
    "lm": "Gemma3ForCausalLM",
    "sequence_classification": "Gemma3TextForSequenceClassification",
    "none": "Gemma3TextModel",
}


def to_document(config: Mapping[str, Any]) -> dict[str, Any]:
    config = checked(HeadConfig, checked(Gemma3StackConfig, config))
    reach: Reach = "half" if config["use_bidirectional_attention"] else "past"
    if not config["is_causal"]:
        if reach == "half" and config["sliding_window"] is not None:
            config["sliding_window"] = config["sliding_window"] // 2 + 1  # what transformers makes of both fields
        reach = "each"
    stack = stack_document(config, reach=reach, dropout=0.0, attention_dropout=config["attention_dropout"])
    return decoder_only(config, ARCHITECTURES, stack, softcap=config["final_logit_softcapping"])


def text_config(spec: ModelSpec, reach: Reach) -> dict[str, Any]:
    """The language model's configuration, without its head."""
    return (
        stack_config(spec.last, spec.vocabulary, reach)
        | tokens_config(spec)
        | {
            "model_type": "gemma3_text",
            "attention_dropout": spec.last.layers[0].self_attention.dropout,
            "final_logit_softcapping": HeadSpec.of(spec.head).softcap,
            "initializer_range": spec.initializer_range,
            "use_bidirectional_attention": reach == "half",
        }
    )


def to_config(spec: ModelSpec) -> dict[str, Any]:
    head = head_config(spec, ARCHITECTURES, softcap="final_logit_softcapping")
    return text_config(spec, "past" if causal(spec) else "half") | head


def writes(spec: ModelSpec) -> bool:
    """Unlike Gemma 2, with norms of queries and keys, or with positions that differ between layers."""
    positions = {layer.self_attention.position for layer in spec.last.layers}
    return spec.assembly == "decoder_only" and (spec.last.qk_normed or len(positions) > 1)


GEMMA3_TEXT = Family("gemma3_text", NAMES, to_document, to_config, writes)
