"""Gemma 3 without pictures (arXiv 2503.19786) in transformers' files."""

from collections.abc import Mapping
from typing import Any

from pairform.assemblies.families.config import HeadConfig, checked
from pairform.assemblies.families.gemma2 import causal
from pairform.assemblies.families.gemma3_stack import Gemma3StackConfig, Reach, stack_config, stack_document
from pairform.assemblies.families.heads import head_config, head_document, tokens_config, tokens_document
from pairform.assemblies.families.table import Family, NameTable, Row
from pairform.assemblies.specs import ModelSpec

ARCHITECTURES = {
    "lm": "Gemma3ForCausalLM",
    "sequence_classification": "Gemma3TextForSequenceClassification",
    "none": "Gemma3TextModel",
}
OURS = "decoder.layers.{layer}."


def text_rows(theirs: str) -> tuple[Row, ...]:
    """`theirs` is what the names of the language model begin with."""
    layer = theirs + "layers.{layer}."
    return (
        Row(theirs + "embed_tokens.weight", "decoder.embedding.weight"),
        Row(theirs + "norm.weight", "decoder.norm.weight"),
        Row(layer + "self_attn.{projection}_proj.{tensor}", OURS + "self_attention.block.{projection}_proj.{tensor}"),
        Row(layer + "self_attn.{side}_norm.weight", OURS + "self_attention.block.{side}_norm.weight"),
        Row(layer + "mlp.{projection}_proj.{tensor}", OURS + "feed_forward.block.{projection}_proj.{tensor}"),
        Row(layer + "input_layernorm.weight", OURS + "self_attention.pre_norm.weight"),
        Row(layer + "post_attention_layernorm.weight", OURS + "self_attention.post_norm.weight"),
        Row(layer + "pre_feedforward_layernorm.weight", OURS + "feed_forward.pre_norm.weight"),
        Row(layer + "post_feedforward_layernorm.weight", OURS + "feed_forward.post_norm.weight"),
    )


NAMES = NameTable(
    (*text_rows("model."), Row("lm_head.weight", "head.weight"), Row("score.{tensor}", "head.proj.{tensor}")),
)


def to_spec(config: Mapping[str, Any]) -> ModelSpec:
    config = checked(HeadConfig, checked(Gemma3StackConfig, config))
    reach: Reach = "half" if config["use_bidirectional_attention"] else "past"
    stack = stack_document(config, reach=reach, dropout=0.0, attention_dropout=config["attention_dropout"])
    head = head_document(config, ARCHITECTURES, softcap=config["final_logit_softcapping"], tie="decoder")
    if head["name"] == "sequence_classification":
        head["bias"] = False  # transformers' generic sequence classifier has none
    return ModelSpec.read(
        {
            "assembly": "decoder_only",
            "vocabulary": config["vocab_size"],
            "tokens": tokens_document(config),
            "decoder": stack,
            "head": head,
            "initializer_range": config["initializer_range"],
        }
    )


def text_config(spec: ModelSpec, reach: Reach) -> dict[str, Any]:
    """The language model's configuration, without its head."""
    attention = spec.last.layers[0].branches.get("self_attention")
    return (
        stack_config(spec.last, spec.vocabulary, reach)
        | tokens_config(spec)
        | {
            "model_type": "gemma3_text",
            "attention_dropout": getattr(attention, "dropout", 0.0),
            "final_logit_softcapping": getattr(spec.head, "softcap", None),
            "initializer_range": spec.initializer_range,
            "use_bidirectional_attention": reach == "half",
        }
    )


def to_config(spec: ModelSpec) -> dict[str, Any]:
    head = head_config(spec, ARCHITECTURES, softcap="final_logit_softcapping")
    return text_config(spec, "past" if causal(spec) else "half") | head


GEMMA3_TEXT = Family("gemma3_text", NAMES, to_spec, to_config)
