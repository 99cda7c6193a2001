"""Stacks of ModernBERT: config.json in both directions."""

from collections.abc import Mapping
from typing import Any

from pairform.assemblies.families.config import ACTIVATION_NAMES, activation_named
from pairform.assemblies.families.gemma import common as gemma
from pairform.assemblies.families.gemma.gemma3_stack import GLOBAL, LOCAL, position
from pairform.assemblies.families.modernbert.config import ModernBertConfig
from pairform.assemblies.families.rope import rope_config
from pairform.assemblies.specs.layer_patches import with_layer_patches
from pairform.assemblies.specs.model import StackSpec
from pairform.assemblies.specs.stack import shortest_cycle
from pairform.registry import Problem, SpecError

THETAS = {LOCAL: 10_000.0, GLOBAL: 160_000.0}
OLDER = {LOCAL: "local_rope_theta", GLOBAL: "global_rope_theta"}
FIRST = {"norms": {"self_attention": {"name": "none"}}}
"""The first layer reads what the norm of the embeddings gives."""


def norm_document(config: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": "layernorm", "eps": config["norm_eps"], "bias": config["norm_bias"]}


def stack_document(config: Mapping[str, Any], *, causal: bool) -> dict[str, Any]:
    """The document of our stack for a checked configuration."""
    check(config, causal)
    depth, period = config["num_hidden_layers"], config["global_attn_every_n_layers"]
    types = config["layer_types"] or [LOCAL if layer % period else GLOBAL for layer in range(depth)]
    local = gemma.local_layers(types, depth)
    of = {kind: position(config, kind, THETAS, OLDER, scaled=(LOCAL, GLOBAL)) for kind in (LOCAL, GLOBAL)}
    attention = {
        "name": "self_attention",
        "heads": config["num_attention_heads"],
        "bias": config["attention_bias"],
        "position": of[GLOBAL],
        "mask": {"causal": causal},
    }
    feed_forward = {
        "name": "gated",
        "activation": activation_named(config["hidden_activation"], "hidden_activation"),
        "hidden": config["intermediate_size"],
        "bias": config["mlp_bias"],
        "dropout": config["mlp_dropout"],
    }
    windowed = (
        {"branches": {"self_attention": {"position": of[LOCAL], "mask": {"window": window(config, causal)}}}}
        if any(local)
        else {}
    )
    stack = {
        "width": config["hidden_size"],
        "depth": depth,
        "embedding": {"name": "token"},
        "embedding_norm": norm_document(config),
        "layer": {
            "norm": norm_document(config),
            "placement": "pre",
            "order": ["self_attention", "cross_attention", "feed_forward"],
            "branches": {"self_attention": attention, "feed_forward": feed_forward},
        },
        "cycle": shortest_cycle([windowed if has_window else {} for has_window in local]) if any(local) else [],
        "dropout": config["embedding_dropout"],
        "final_dropout": 0.0,
        "max_length": config["max_position_embeddings"],
    }
    return with_layer_patches(stack, [FIRST, *({} for _ in range(depth - 1))])


def check(config: Mapping[str, Any], causal: bool) -> None:
    """Refuse what transformers computes in a way that specs do not express."""
    problems = []
    if config["attention_dropout"]:
        expected = "0: with another, transformers also drops the outputs of attention, but not those of feed-forward layers"
        problems.append(Problem("attention_dropout", str(config["attention_dropout"]), expected))
    if config["is_causal"] not in (None, causal):
        problems.append(Problem("is_causal", str(config["is_causal"]).lower(), f"{str(causal).lower()}, or nothing"))
    width = config["hidden_size"] / config["num_attention_heads"]
    if config["head_dim"] not in (None, width):
        problems.append(
            Problem("head_dim", str(config["head_dim"]), f"{width:g}: hidden_size / num_attention_heads, or nothing")
        )
    if problems:
        raise SpecError(problems)


def window(config: Mapping[str, Any], causal: bool) -> list[int]:
    """How many tokens a query sees to its left and right. local_attention counts those on both sides."""
    reach = (config["local_attention"] or 0) // 2 - causal
    if reach < 0 or not config["local_attention"]:
        found = "nothing" if config["local_attention"] is None else str(config["local_attention"])
        raise SpecError(Problem("local_attention", found, f"{2 if causal else 1} or more: some layers are {LOCAL}"))
    return [reach] * 2


def stack_config(stack: StackSpec, vocabulary: int, *, causal: bool) -> dict[str, Any]:
    """The inverse. What it cannot express shows when the result is read back."""
    layer = stack.layers[0]
    attentions = [gemma.branch(layer, "self_attention") for layer in stack.layers]
    feed_forward, norm = gemma.branch(layer, "feed_forward"), stack.layer.norm.document()
    windows = [attention.get("mask", {}).get("window") for attention in attentions]
    types = [GLOBAL if window is None else LOCAL for window in windows]
    kinds = dict(reversed(list(zip(types, attentions, strict=True))))  # the first of each kind stays
    given = next((window for window in windows if window is not None), None)
    activation = feed_forward.get("activation", "gelu")
    return {
        "vocab_size": vocabulary,
        "hidden_size": stack.width,
        "intermediate_size": feed_forward.get("hidden", 1),
        "num_hidden_layers": stack.depth,
        "num_attention_heads": attentions[0].get("heads", 1),
        "hidden_activation": ACTIVATION_NAMES.get(activation, activation),
        "max_position_embeddings": stack.max_length or ModernBertConfig().max_position_embeddings,
        "norm_eps": norm.get("eps", 1e-5),
        "norm_bias": bool(norm.get("bias", False)),
        "attention_bias": bool(attentions[0].get("bias", False)),
        "layer_types": types,
        "rope_parameters": {
            kind: rope_config(kinds.get(kind, {}).get("position") or {"theta": THETAS[kind]}) for kind in (GLOBAL, LOCAL)
        },
        "local_attention": 128 if given is None else 2 * (given[0] + causal),
        "embedding_dropout": stack.dropout,
        "mlp_bias": bool(feed_forward.get("bias", False)),
        "mlp_dropout": feed_forward.get("dropout", 0.0),
    }
