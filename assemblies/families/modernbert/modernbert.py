"""ModernBERT (arXiv 2412.13663) and its decoder, both halves of Ettin (arXiv 2507.11412), in transformers' files.

A classifier that reads the first token reads the first that is not padding; transformers' reads padding on the left.
"""

from collections.abc import Mapping
from typing import Any

from pairform.assemblies.families.config import ACTIVATION_NAMES, activation_named, checked
from pairform.assemblies.families.family import Family, NameTable
from pairform.assemblies.families.heads import head_config, head_document
from pairform.assemblies.families.modernbert.config import ModernBertConfig
from pairform.assemblies.families.modernbert.names import CLASSIFIER, DECODER, ENCODER
from pairform.assemblies.families.modernbert.stack import norm_document, stack_config, stack_document
from pairform.assemblies.families.tokens import tokens_config, tokens_document
from pairform.assemblies.specs.model import ModelSpec
from pairform.blocks.spec_fields import HeadSpec

ENCODERS = {
    "masked_lm": "ModernBertForMaskedLM",
    "sequence_classification": "ModernBertForSequenceClassification",
    "token_classification": "ModernBertForTokenClassification",
    "span": "ModernBertForQuestionAnswering",
    "none": "ModernBertModel",
}
DECODERS = {
    "lm": "ModernBertDecoderForCausalLM",
    "sequence_classification": "ModernBertDecoderForSequenceClassification",
    "none": "ModernBertDecoderModel",
}
POOLING = {"cls": "first", "mean": "mean"}


def encoder_document(config: Mapping[str, Any]) -> dict[str, Any]:
    config = checked(ModernBertConfig, config)
    named = config | {"architectures": config["architectures"] or [ENCODERS["none"]]}
    head = head_document(named, ENCODERS, softcap=None, tie="encoder")
    if head["name"] == "masked_lm":
        tied = {"tie": "encoder"} if config["tie_word_embeddings"] else {}
        head = {"name": "masked_lm", "bias": config["decoder_bias"]} | tied
    if head["name"] == "sequence_classification":
        head["pooling"] = POOLING[config["classifier_pooling"]]
    return document("encoder", config, with_transform(head, config))


def decoder_document(config: Mapping[str, Any]) -> dict[str, Any]:
    config = checked(ModernBertConfig, config)
    head = head_document(config, DECODERS, softcap=None, tie="decoder", classifier_bias=config["classifier_bias"])
    if head["name"] == "lm" and config["decoder_bias"]:
        head["bias"] = "learned"
    return document("decoder", config, with_transform(head, config))


def document(part: str, config: Mapping[str, Any], head: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "assembly": f"{part}_only",
        "vocabulary": config["vocab_size"],
        "tokens": tokens_document(config),
        part: stack_document(config, causal=part == "decoder"),
        "head": head,
        "initializer_range": config["initializer_range"],
    }


def with_transform(head: dict[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """A head with the dense layer that all heads of the family have."""
    if head["name"] == "none":
        return head
    activation = activation_named(config["classifier_activation"], "classifier_activation")
    transform = {"activation": activation, "bias": config["classifier_bias"], "norm": norm_document(config)}
    dropout = {} if head["name"] in ("lm", "masked_lm") else {"dropout": config["classifier_dropout"] or 0.0}
    return head | dropout | {"transform": transform}


def to_config(spec: ModelSpec) -> dict[str, Any]:
    """config.json of either. What it cannot express shows when it is read back."""
    causal = spec.assembly == "decoder_only"
    head = HeadSpec.of(spec.head)
    config = stack_config(spec.last, spec.vocabulary, causal=causal) | tokens_config(spec, "decoder" if causal else "encoder")
    config |= head_config(spec, DECODERS if causal else ENCODERS)
    if head.name in ("lm", "masked_lm"):
        config |= {"decoder_bias": bool(head.bias), "tie_word_embeddings": head.tie is not None}
    if head.labels or head.name == "span":
        config["classifier_dropout"] = head.dropout
    if head.labels and not causal:
        config["classifier_pooling"] = next((theirs for theirs, ours in POOLING.items() if ours == head.pooling), "cls")
    if head.transform is not None:
        transform = head.transform.document()
        activation = transform.get("activation", "gelu")
        config |= {
            "classifier_activation": ACTIVATION_NAMES.get(activation, activation),
            "classifier_bias": transform.get("bias"),
        }
    return config


def modern(spec: ModelSpec) -> bool:
    """Whether a spec's last stack is one with layer norms around and in a stack without a table of positions."""
    stack = spec.last
    return stack.embedding_norm is not None and stack.position is None and stack.layers[0].placement == "pre"


def decoder_names(spec: ModelSpec) -> NameTable:
    return CLASSIFIER if spec.head.name == "sequence_classification" else DECODER


FAMILIES = (
    Family("modernbert", ENCODER, encoder_document, to_config, lambda spec: spec.assembly == "encoder_only" and modern(spec)),
    Family(
        "modernbert-decoder",
        DECODER,
        decoder_document,
        to_config,
        lambda spec: spec.assembly == "decoder_only" and modern(spec),
        written=decoder_names,
    ),
)
