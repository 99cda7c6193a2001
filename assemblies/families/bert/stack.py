"""Stacks of BERT and RoBERTa: config.json in both directions."""

from collections.abc import Mapping
from typing import Any

from pairform.assemblies.families.bert.kinds import Kind
from pairform.assemblies.families.config import EARLIER_ACTIVATION_NAMES, activation_named
from pairform.assemblies.families.gemma.common import branch
from pairform.assemblies.specs.model import StackSpec
from pairform.blocks.positions.absolute import LearnedPosition
from pairform.registry import Problem, SpecError


def norm_document(config: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": "layernorm", "eps": config["layer_norm_eps"]}


def stack_document(kind: Kind, config: Mapping[str, Any], *, decoder: bool = False) -> dict[str, Any]:
    """The document of our stack for a checked configuration.

    decoder: causal, with cross-attention.
    """
    if config["position_embedding_type"] not in (None, "absolute"):
        found = repr(config["position_embedding_type"])
        raise SpecError(Problem("position_embedding_type", found, "'absolute': transformers 5 has no relative positions here"))
    offset, dropout = kind.offset(config), config["hidden_dropout_prob"]
    attention = {"heads": config["num_attention_heads"], "bias": True, "dropout": config["attention_probs_dropout_prob"]}
    feed_forward = {
        "name": "mlp",
        "activation": activation_named(config["hidden_act"], "hidden_act"),
        "hidden": config["intermediate_size"],
        "bias": True,
    }
    branches = {"self_attention": {"name": "self_attention", **attention, "mask": {"causal": decoder}}}
    if decoder:
        branches["cross_attention"] = {"name": "cross_attention", **attention}
    return {
        "width": config["hidden_size"],
        "depth": config["num_hidden_layers"],
        "embedding": {"name": "token"},
        "position": {"name": "learned", "length": config["max_position_embeddings"], "offset": offset},
        "token_types": config["type_vocab_size"],
        "embedding_norm": norm_document(config),
        "layer": {
            "norm": norm_document(config),
            "placement": "post",
            "order": ["self_attention", "cross_attention", "feed_forward"],
            "branches": branches | {"feed_forward": feed_forward},
            "dropout": dropout,
        },
        "final_norm": {"name": "none"},
        "dropout": dropout,
        "final_dropout": 0.0,
        "max_length": max(config["max_position_embeddings"] - offset, 1),
    }


def stack_config(stack: StackSpec, vocabulary: int) -> dict[str, Any]:
    """The inverse. What it cannot express shows when it is read back."""
    layer = stack.layers[0]
    attention, feed_forward = branch(layer, "self_attention"), branch(layer, "feed_forward")
    activation = feed_forward.get("activation", "gelu")
    return {
        "attention_probs_dropout_prob": attention.get("dropout", 0.0),
        "hidden_act": EARLIER_ACTIVATION_NAMES.get(activation, activation),
        "hidden_dropout_prob": stack.dropout,
        "hidden_size": stack.width,
        "intermediate_size": feed_forward.get("hidden", 1),
        "layer_norm_eps": layer.norm.document().get("eps", 1e-12),
        "max_position_embeddings": 1 if stack.position is None else stack.position.document().get("length", 1),
        "num_attention_heads": attention.get("heads", 1),
        "num_hidden_layers": stack.depth,
        "type_vocab_size": stack.token_types or 1,
        "vocab_size": vocabulary,
    }


def offset_of(stack: StackSpec) -> int | None:
    """The row of the first position in a stack like BERT's or RoBERTa's; None for any other stack."""
    like = stack.layers[0].placement == "post" and stack.embedding_norm is not None and stack.token_types is not None
    return stack.position.offset if like and isinstance(stack.position, LearnedPosition.Spec) else None
