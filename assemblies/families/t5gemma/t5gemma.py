"""T5Gemma (arXiv 2504.06225) in transformers' files."""

from collections.abc import Mapping
from typing import Any

from pairform.assemblies.families.config import (
    EncoderStackConfig,
    HeadConfig,
    StackConfig,
    checked,
    inside,
    part_config,
    require_is_causal,
)
from pairform.assemblies.families.family import Family, NameTable, Row
from pairform.assemblies.families.gemma.common import stack_config, stack_document
from pairform.assemblies.families.heads import architectures, head_config, head_document
from pairform.assemblies.families.rows import stack_rows
from pairform.assemblies.families.tokens import encoder_tokens, tokens_config, tokens_document
from pairform.assemblies.specs.model import ModelSpec
from pairform.blocks.spec_fields import HeadSpec

ARCHITECTURES = architectures("T5Gemma", lm="ForConditionalGeneration")
ENCODER_ONLY = {name: theirs for name, theirs in ARCHITECTURES.items() if name != "lm"} | {"none": "T5GemmaEncoderModel"}
MODULE = "t5_gemma_module"
HEADS = (Row("lm_head.out_proj.weight", "head.weight"), Row("score.out_proj.{tensor}", "head.proj.{tensor}"))
NORMS = {
    "{place}_self_attn_layernorm": "self_attention.{place}_norm",
    "{place}_cross_attn_layernorm": "cross_attention.{place}_norm",
    "{place}_feedforward_layernorm": "feed_forward.{place}_norm",
}
"""`place` is pre or post."""

CROSS_ATTENTION = Row(
    "model.{part}.layers.{layer}.cross_attn.{projection}_proj.{tensor}",
    "{part}.layers.{layer}.cross_attention.block.{projection}_proj.{tensor}",
)
NAMES = NameTable((*stack_rows("model.{part}.", "{part}", NORMS), CROSS_ATTENTION, *HEADS))

CROSS_FIELDS = ("heads", "kv_heads", "head_dim", "scale", "softcap", "bias", "dropout")
"""What a decoder's cross-attention shares with its self-attention."""


def to_document(config: Mapping[str, Any]) -> dict[str, Any]:
    config = checked(HeadConfig, config)
    parts = {
        "encoder": part_config(EncoderStackConfig, config, "encoder"),
        "decoder": part_config(StackConfig, config, "decoder"),
    }
    encoder_only = not config["is_encoder_decoder"]
    dropout = {"dropout": config["dropout_rate"], "attention_dropout": config["attention_dropout"]}
    last = parts["encoder" if encoder_only else "decoder"]
    architectures = ENCODER_ONLY if encoder_only else ARCHITECTURES
    head = head_document(config, architectures, softcap=last["final_logit_softcapping"], tie="decoder")
    if "labels" in head:
        head["dropout"] = config["classifier_dropout_rate"]
    document: dict[str, Any] = {
        "assembly": "encoder_only" if encoder_only else "encoder_decoder",
        "vocabulary": last["vocab_size"],
        "tokens": tokens_document(last),
        "head": head,
        "initializer_range": last["initializer_range"],
    }
    for part, own in parts.items():
        if part == "decoder" and encoder_only:
            continue
        with inside(part):
            require_is_causal(own, part == "decoder")
            stack = stack_document(own, causal=part == "decoder", **dropout)
        stack["embedding"]["scale_given"] = True
        if part == "decoder":
            branches = stack["layer"]["branches"]
            shared = {field: branches["self_attention"][field] for field in CROSS_FIELDS}
            branches["cross_attention"] = {"name": "cross_attention", **shared}
        if own["vocab_size"] != document["vocabulary"]:
            stack["vocabulary"] = own["vocab_size"]
        if part == "encoder" and not encoder_only:
            stack["tokens"] = encoder_tokens(tokens_document(own), tokens_document(last))
        document[part] = stack
    return document


def to_config(spec: ModelSpec) -> dict[str, Any]:
    encoder_only = spec.assembly == "encoder_only"
    first = spec.last.layers[0]
    shared = {
        "dropout_rate": first.dropout,
        "attention_dropout": first.self_attention.dropout,
    }
    head = head_config(spec, ENCODER_ONLY if encoder_only else ARCHITECTURES, softcap="final_logit_softcapping")
    tied = head["tie_word_embeddings"]
    softcap = head.pop("final_logit_softcapping", 30.0)
    config = head | shared | tokens_config(spec)
    for part in ("encoder", "decoder"):
        stack = spec.stacks.get(part, spec.last)
        config[part] = stack_config(stack, vocabulary(spec, part)) | shared | tokens_config(spec, part)
        config[part] |= {
            "model_type": MODULE,
            "final_logit_softcapping": softcap,
            "initializer_range": spec.initializer_range,
            "is_decoder": part == "decoder",
            "tie_word_embeddings": tied,
        }
    config["decoder"]["cross_attention_hidden_size"] = config["encoder"]["hidden_size"]
    return config | {
        "classifier_dropout_rate": HeadSpec.of(spec.head).dropout,
        "is_encoder_decoder": not encoder_only,
        "vocab_size": vocabulary(spec, "decoder"),
    }


def vocabulary(spec: ModelSpec, part: str) -> int:
    return spec.vocabulary_of(part) if part in spec.stacks else spec.vocabulary


T5GEMMA = Family("t5gemma", NAMES, to_document, to_config, writes=lambda spec: spec.assembly != "decoder_only")
