"""Heads of BERT and RoBERTa: config.json in both directions."""

from collections.abc import Mapping
from typing import Any

from pairform.assemblies.families.bert.kinds import Kind
from pairform.assemblies.families.bert.stack import norm_document
from pairform.assemblies.families.config import activation_named
from pairform.assemblies.families.heads import head_config, label_names, problem_named
from pairform.assemblies.specs.model import ModelSpec
from pairform.blocks.spec_fields import HeadSpec
from pairform.registry import Problem, SpecError

POOLER = {"name": "sentence_embedding", "pooling": "first", "normalise": False, "transform": {"activation": "tanh"}}
"""The vector that transformers' base models return beside the hidden states."""


def architectures(kind: Kind) -> dict[str, str]:
    """transformers' class for each of our heads."""
    return {
        "masked_lm": f"{kind.classes}ForMaskedLM",
        "sequence_classification": f"{kind.classes}ForSequenceClassification",
        "token_classification": f"{kind.classes}ForTokenClassification",
        "span": f"{kind.classes}ForQuestionAnswering",
        "sentence_embedding": f"{kind.classes}Model",
        "none": f"{kind.classes}Model",
    }


def lm_head(kind: Kind, config: Mapping[str, Any], name: str, stack: str) -> dict[str, Any]:
    """The head of a masked language model, or of a decoder: `lm`."""
    activation = activation_named(config["hidden_act"], "hidden_act") if kind.own_activation else "gelu"
    tie = {"tie": stack} if config["tie_word_embeddings"] else {}
    bias = {"bias": "learned"} if name == "lm" else {}
    return {"name": name, "transform": {"activation": activation, "norm": norm_document(config)}, **bias, **tie}


def head_document(kind: Kind, config: Mapping[str, Any]) -> dict[str, Any]:
    """The head of an encoder, by `architectures` in config.json; without that field the masked language model's."""
    known = architectures(kind)
    base = POOLER if config["add_pooling_layer"] else {"name": "none"}
    named = config["architectures"] or [known["masked_lm"]]
    if kind.classes == "Bert" and named == ["BertForPreTraining"]:  # its second head predicts whether sentences follow
        named = [known["masked_lm"]]
    name = next((name for name, architecture in known.items() if named == [architecture]), None)
    if name is None:
        raise SpecError(Problem("architectures", repr(named), f"one of {', '.join(dict.fromkeys(known.values()))}"))
    if name in ("none", "sentence_embedding"):
        return base
    if name == "masked_lm":
        return lm_head(kind, config, name, "encoder")
    if name == "span":
        return {"name": name}
    own, common = config["classifier_dropout"], config["hidden_dropout_prob"]
    head = {"name": name, "labels": label_names(config), "dropout": common if own is None else own}
    if name == "sequence_classification":
        head |= {"pooling": "first", "transform": {"activation": "tanh"}} | problem_named(config)
    return head


def to_head_config(kind: Kind, spec: ModelSpec) -> dict[str, Any]:
    """The inverse."""
    config = head_config(spec, architectures(kind))
    head = HeadSpec.of(spec.head)
    if head.name == "masked_lm":
        config["tie_word_embeddings"] = head.tie is not None
    if head.labels:
        config["classifier_dropout"] = head.dropout
    return config | ({"add_pooling_layer": False} if head.name == "none" else {})


def without_pooler(document: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    """A merge patch for a base model whose files have no pooler."""
    if document["head"]["name"] != "sentence_embedding" or any("pooler.dense." in name for name in names):
        return {}
    return {"head": dict.fromkeys(POOLER) | {"name": "none"}}
