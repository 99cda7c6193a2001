"""One stack, as the configurations of Gemma 2 and T5Gemma describe it."""

from collections.abc import Mapping
from typing import Any

from pairform.assemblies.families.config import ACTIVATION_NAMES, ACTIVATIONS, StackConfig, activation_named, warn_unread
from pairform.assemblies.families.rope import rope, rope_config
from pairform.assemblies.specs.model import LayerSpec, StackSpec
from pairform.assemblies.specs.stack import shortest_cycle
from pairform.registry import Problem, SpecError, shorten

DEFAULTS = StackConfig()

LAYER_TYPES = {"sliding_attention": True, "full_attention": False}


def stack_document(
    config: Mapping[str, Any], *, causal: bool, dropout: float, attention_dropout: float, inclusive: bool = False
) -> dict[str, Any]:
    """The document of our stack for a checked configuration.

    inclusive: whether a window is the number of tokens to each side of a query, as transformers has it for `is_causal: false`.
               Otherwise it counts the query too, as models with causal windows and T5Gemma's encoder were trained.
    """
    attention = {
        "name": "self_attention",
        "heads": config["num_attention_heads"],
        "kv_heads": config["num_key_value_heads"],
        "head_dim": config["head_dim"],
        # not head_dim: Gemma 2 27B has 144 with heads of 128 channels
        "scale": config["query_pre_attn_scalar"] ** -0.5,
        "softcap": config["attn_logit_softcapping"],
        "bias": config["attention_bias"],
        "dropout": attention_dropout,
        "position": {"name": "rope", **rope(config)},
        "mask": {"causal": causal},
    }
    feed_forward = {
        "name": "gated",
        "activation": activation(config),
        "hidden": config["intermediate_size"],
        "dropout": dropout,
    }
    return {
        "width": config["hidden_size"],
        "depth": config["num_hidden_layers"],
        "embedding": {"name": "token", "scale": "sqrt_width"},
        "layer": {
            "norm": {"name": "rmsnorm", "eps": config["rms_norm_eps"], "unit_offset": True},
            "placement": "sandwich",
            "order": ["self_attention", "cross_attention", "feed_forward"],
            "branches": {"self_attention": attention, "feed_forward": feed_forward},
            "dropout": dropout,
        },
        "cycle": cycle(config, inclusive),
        "dropout": dropout,
        "max_length": config["max_position_embeddings"],
    }


def stack_config(stack: StackSpec, vocabulary: int, *, inclusive: bool = False) -> dict[str, Any]:
    """The inverse. What it cannot express shows when the result is read back."""
    layer = stack.layers[0]
    attention, feed_forward = branch(layer, "self_attention"), branch(layer, "feed_forward")
    windows = [branch(layer, "self_attention").get("mask", {}).get("window") for layer in stack.layers]
    window = next((window for window in windows if window is not None), None)
    act = feed_forward.get("activation", "gelu_tanh")
    heads = attention.get("heads", 1)
    head_dim = attention.get("head_dim") or stack.width // heads
    return {
        "attention_bias": bool(attention.get("bias", False)),
        "attn_logit_softcapping": attention.get("softcap"),
        "head_dim": head_dim,
        "hidden_activation": ACTIVATION_NAMES.get(act, act),
        "hidden_size": stack.width,
        "intermediate_size": feed_forward.get("hidden", 1),
        "layer_types": ["full_attention" if window is None else "sliding_attention" for window in windows],
        "max_position_embeddings": stack.max_length or DEFAULTS.max_position_embeddings,
        "num_attention_heads": heads,
        "num_hidden_layers": stack.depth,
        "num_key_value_heads": attention.get("kv_heads") or heads,
        "query_pre_attn_scalar": scalar_of(attention.get("scale") or head_dim**-0.5),
        "rms_norm_eps": layer.norm.document().get("eps", DEFAULTS.rms_norm_eps),
        "rope_parameters": rope_config(attention.get("position", {})),
        "sliding_window": DEFAULTS.sliding_window if window is None else window[0] + (not inclusive),
        "vocab_size": vocabulary,
    }


def scalar_of(scale: float) -> int | float:
    """The query_pre_attn_scalar for a scale: a whole number if one gives exactly this scale."""
    scalar = scale**-2
    whole = round(scalar)
    return whole if whole > 0 and whole**-0.5 == scale else scalar


def branch(layer: LayerSpec, name: str) -> dict[str, Any]:
    found = layer.branches.get(name)
    document: dict[str, Any] = {} if found is None else found.document()
    return document


def activation(config: Mapping[str, Any]) -> str:
    """The activation, from `hidden_activation` alone as in transformers; `hidden_act` is the field of Gemma 1."""
    found = activation_named(config.get("hidden_activation") or "gelu_pytorch_tanh", "hidden_activation")
    other = config.get("hidden_act")
    if other is not None and ACTIVATIONS.get(other) != found:
        warn_unread("hidden_act", other, f"the model has {found!r}. Set hidden_activation.")
    return found


def cycle(config: Mapping[str, Any], inclusive: bool) -> list[dict[str, Any]]:
    """The shortest cycle of patches that gives each layer its type."""
    depth, window = config["num_hidden_layers"], config["sliding_window"]
    types = config.get("layer_types")
    if types is None:
        # Gemma 2's files before `layer_types`: alternating, local first
        types = (["sliding_attention", "full_attention"] * depth)[:depth]
    windowed = local_layers(types, depth)
    if not any(windowed):
        return []
    if window is None:
        raise SpecError(Problem("sliding_window", "nothing", "a number of tokens: some layers are sliding_attention"))
    local = {"branches": {"self_attention": {"mask": {"window": window_pair(window, inclusive)}}}}
    return shortest_cycle([local if has_window else {} for has_window in windowed])


def window_pair(width: int, inclusive: bool) -> list[int]:
    """How many tokens a query sees to its left and right."""
    return [width if inclusive else width - 1] * 2


def local_layers(types: list[str], depth: int) -> list[bool]:
    """Whether each layer has a window, from `layer_types`."""
    if len(types) != depth or any(kind not in LAYER_TYPES for kind in types):
        raise SpecError(Problem("layer_types", shorten(types), f"{depth} of {' or '.join(LAYER_TYPES)}"))
    return [LAYER_TYPES[kind] for kind in types]
