"""The stack of Gemma 4 between its configuration and our specs."""

from collections.abc import Mapping
from typing import Any

from pairform.assemblies.families.config import ACTIVATION_NAMES, activation_named
from pairform.assemblies.families.gemma.common import branch, local_layers
from pairform.assemblies.families.gemma.gemma3_stack import GLOBAL, LOCAL
from pairform.assemblies.families.gemma4.config import Gemma4Config
from pairform.assemblies.families.rope import rope, rope_config
from pairform.assemblies.specs.model import StackSpec
from pairform.assemblies.specs.stack import shortest_cycle
from pairform.registry import Problem, SpecError, shorten

ROPE: Mapping[str, Mapping[str, Any]] = {
    LOCAL: {"rope_type": "default", "rope_theta": 10_000.0},
    GLOBAL: {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1_000_000.0},
}
"""transformers' parameters for a configuration without any."""
OVERRIDES = {"head_dim": "head_dim", "num_key_value_heads": "kv_heads"}
"""What `per_layer_config` may say of a layer, and our field."""
SHARING = {"share_keys": True, "keys_as_values": False, "value_norm": None}


def stack_document(config: Mapping[str, Any]) -> dict[str, Any]:
    """The document of our stack for a checked configuration. Its template is the local layer, where there is one."""
    everywhere = config["use_bidirectional_attention"] == "all"
    check_is_causal(config["is_causal"], causal=not everywhere)
    types = layer_types(config)
    norm = {"name": "rmsnorm", "eps": config["rms_norm_eps"]}
    kinds = {kind: kind_of_layer(config, types, kind) for kind in (LOCAL, GLOBAL) if kind in types}
    template, *others = kinds.values()
    attention = {
        "name": "self_attention",
        "heads": config["num_attention_heads"],
        "scale": 1.0,
        "qk_norm": norm,
        "value_norm": norm | {"affine": False},
        "bias": config["attention_bias"],
        "dropout": config["attention_dropout"],
        "mask": {"causal": not everywhere},
    }
    if LOCAL in kinds:
        attention["mask"]["window"] = window_pair(config["sliding_window"], everywhere)
    patch = others[0] | {"mask": {"window": None}} if others else {}
    if others and "keys_as_values" not in patch and "keys_as_values" in template:
        patch["keys_as_values"] = False
    global_layer = {"branches": {"self_attention": patch}}
    # the last layer is global whatever the cycle says
    cycle = shortest_cycle([{} if kind == LOCAL else global_layer for kind in types[:-1]]) if others else []
    last = (
        [] if not cycle or cycle[(len(types) - 1) % len(cycle)] == global_layer else [{"layers": [-1], "patch": global_layer}]
    )
    channels = config["hidden_size_per_layer_input"]
    document = {
        "width": config["hidden_size"],
        "depth": config["num_hidden_layers"],
        "embedding": {"name": "token", "scale": "sqrt_width"},
        "layer": {
            "norm": norm,
            "placement": "sandwich",
            "order": ["self_attention", "cross_attention", "feed_forward"],
            "branches": {"self_attention": attention | template, "feed_forward": feed_forward(config, norm)},
            "output_scale": "stored",
        },
        "cycle": cycle,
        "overrides": last + shared_layers(config, types),
        "max_length": config["max_position_embeddings"],
    }
    if config["enable_moe_block"]:
        document["layer"]["norms"] = {"feed_forward": {"name": "none"}}
    if channels:
        own = {"channels": channels, "activation": activation(config), "norm": norm}
        document["layer_input"] = own | {"vocabulary": config["vocab_size_per_layer_input"]}
    return document


def check_is_causal(given: bool | None, *, causal: bool) -> None:
    if given is not None and given is not causal:
        expected = f"{str(causal).lower()} or nothing, beside this use_bidirectional_attention"
        raise SpecError(Problem("is_causal", str(given).lower(), expected))


def activation(config: Mapping[str, Any]) -> str:
    return activation_named(config["hidden_activation"], "hidden_activation")


def layer_types(config: Mapping[str, Any]) -> list[str]:
    """Of each layer; the last one is global whatever the file says, as in transformers."""
    depth = config["num_hidden_layers"]
    types: list[str] = config["layer_types"] or [LOCAL if (layer + 1) % 6 else GLOBAL for layer in range(depth)]
    local_layers(types, depth)
    return [*types[:-1], GLOBAL]


def kind_of_layer(config: Mapping[str, Any], types: list[str], kind: str) -> dict[str, Any]:
    """Fields of self-attention in local or global layers."""
    found = {"kv_heads": config["num_key_value_heads"], "head_dim": config["head_dim"]}
    given = config["per_layer_config"]
    if given is not None:
        own: list[dict[str, Any]] = [{} for _ in types]
        for key, fields in given.items():
            own[layer_number(key, len(types))] = fields
        mine = [fields for fields, each in zip(own, types, strict=True) if each == kind]
        if any(fields != mine[0] for fields in mine):
            raise SpecError(Problem("per_layer_config", f"layers of the type {kind} that differ", "the same for all of them"))
        if unknown := mine[0].keys() - OVERRIDES.keys():
            expected = f"{' and '.join(OVERRIDES)} alone"
            raise SpecError(Problem("per_layer_config", shorten(sorted(unknown)), expected))
        found |= {OVERRIDES[field]: value for field, value in mine[0].items()}
    elif kind == GLOBAL:
        found["head_dim"] = config["global_head_dim"]
        if config["attention_k_eq_v"] and config["num_global_key_value_heads"] is not None:
            found["kv_heads"] = config["num_global_key_value_heads"]
    if config["attention_k_eq_v"] and kind == GLOBAL:
        found["keys_as_values"] = True
    return found | {"position": position(config, kind)}


def layer_number(key: str, depth: int) -> int:
    """The layer that a key of `per_layer_config` names, such as "05"."""
    if not key.isdecimal() or not key.isascii() or len(key) > 5 or int(key) >= depth:
        raise SpecError(Problem("per_layer_config", shorten(key), f"numbers of layers, from 0 to {depth - 1}"))
    return int(key)


def position(config: Mapping[str, Any], kind: str, defaults: Mapping[str, Mapping[str, Any]] = ROPE) -> dict[str, Any]:
    """Of layers of one kind. transformers fails for a kind without rope_theta, and with `rope_scaling`.

    defaults: the parameters of each kind in a configuration without any.
    """
    by_type = config["rope_parameters"]
    where = f"rope_parameters.{kind}"
    parameters = defaults[kind] if by_type is None else by_type.get(kind)
    if parameters is None or (by_type or {}).get("rope_theta") is not None:
        raise SpecError(Problem(where, "nothing", f"an object for each of {LOCAL} and {GLOBAL}, or no rope_parameters"))
    if parameters.get("rope_theta") is None:
        raise SpecError(Problem(f"{where}.rope_theta", "nothing", "a number: this family has no default for one kind alone"))
    if config.get("rope_scaling") is not None:
        raise SpecError(Problem("rope_scaling", shorten(config["rope_scaling"]), "nothing: rope_parameters has the scaling"))
    given = {"rope_parameters": parameters, "max_position_embeddings": config["max_position_embeddings"]}
    return {"name": "rope", **rope(given, where)}


def window_pair(width: int, everywhere: bool) -> list[int]:
    """How many tokens a query of a local layer attends to on its left and right."""
    if width == 0 and not everywhere:
        raise SpecError(Problem("sliding_window", "0", f"a number of tokens: some layers are {LOCAL}"))
    return [width // 2 + 1 if everywhere else width - 1] * 2


def feed_forward(config: Mapping[str, Any], norm: dict[str, Any]) -> dict[str, Any]:
    gated = {"name": "gated", "activation": activation(config), "hidden": config["intermediate_size"]}
    if not config["enable_moe_block"]:
        return gated
    for field in ("num_experts", "top_k_experts", "moe_intermediate_size"):
        if config[field] is None:
            raise SpecError(Problem(field, "nothing", "a number: enable_moe_block is true"))
    norms = ("router_norm", "pre_norm", "post_norm", "shared_pre_norm", "shared_post_norm", "output_norm")
    return {
        "name": "mixture",
        "experts": config["num_experts"],
        "top_k": config["top_k_experts"],
        "expert": gated | {"hidden": config["moe_intermediate_size"]},
        "shared": gated,
        "expert_scale": True,
        "router_scale": "inverse_sqrt_width",
        "balance": 0.0,
        **dict.fromkeys(norms, norm),
    }


def shared_layers(config: Mapping[str, Any], types: list[str]) -> list[dict[str, Any]]:
    """The override of the last layers, which share the keys of the last earlier layers of their types."""
    shared, depth = config["num_kv_shared_layers"], len(types)
    if not shared:
        return []
    if shared >= depth or set(types[: depth - shared]) != set(types):
        expected = f"fewer: a layer of each type before them, of {depth}"
        raise SpecError(Problem("num_kv_shared_layers", str(shared), expected))
    branches: dict[str, Any] = {"self_attention": SHARING}
    if config["use_double_wide_mlp"]:
        wide = {"hidden": 2 * config["intermediate_size"]}
        branches["feed_forward"] = {"shared": wide} if config["enable_moe_block"] else wide
    return [{"layers": [*range(depth - shared, depth)], "patch": {"branches": branches}}]


def stack_config(stack: StackSpec, vocabulary: int) -> dict[str, Any]:
    """The inverse. What it cannot express shows when the result is read back."""
    layers = [branch(layer, "self_attention") for layer in stack.layers]
    windows = [attention.get("mask", {}).get("window") for attention in layers]
    types = [LOCAL if window else GLOBAL for window in windows]
    kinds = dict(reversed(list(zip(types, layers, strict=True))))  # the first of each kind stays
    first, everywhere = layers[0], not layers[0].get("mask", {}).get("causal", True)
    last: dict[str, Any] = kinds.get(GLOBAL, {})
    local = kinds.get(LOCAL, last)
    widths = [branch(layer, "feed_forward") for layer in stack.layers]
    mixture = widths[0] if widths[0].get("name") == "mixture" else {}
    dense = [width.get("shared", width).get("hidden", 1) for width in widths]
    sharing = [attention.get("share_keys", False) for attention in layers]
    act = mixture.get("shared", widths[0]).get("activation", "gelu_tanh")
    window = next((window[0] for window in windows if window), None)
    given = stack.layer_input
    defaults = Gemma4Config()
    heads = [{theirs: attention.get(ours) for theirs, ours in OVERRIDES.items()} for attention in (local, last)]
    own = {field: value for field, value in heads[1].items() if value is not None and value != heads[0][field]}
    config = {
        "attention_bias": bool(first.get("bias", False)),
        "attention_dropout": first.get("dropout", 0.0),
        "attention_k_eq_v": last.get("keys_as_values", False),
        "head_dim": heads[0]["head_dim"] or stack.width // first.get("heads", 1),
        "hidden_activation": ACTIVATION_NAMES.get(act, act),
        "hidden_size": stack.width,
        "hidden_size_per_layer_input": 0 if given is None else given.channels,
        "vocab_size_per_layer_input": vocabulary if given is None else given.vocabulary or vocabulary,
        "intermediate_size": dense[0],
        "layer_types": types,
        "max_position_embeddings": stack.max_length or defaults.max_position_embeddings,
        "num_attention_heads": first.get("heads", 1),
        "num_hidden_layers": stack.depth,
        "num_key_value_heads": heads[0]["num_key_value_heads"] or first.get("heads", 1),
        "num_kv_shared_layers": sum(sharing),
        "use_double_wide_mlp": any(shared and hidden == 2 * dense[0] for shared, hidden in zip(sharing, dense, strict=True)),
        "per_layer_config": {str(layer): own for layer, kind in enumerate(types) if kind == GLOBAL and own},
        "rms_norm_eps": stack.layer.norm.document().get("eps", defaults.rms_norm_eps),
        "rope_parameters": {
            kind: rope_config(kinds[kind].get("position", {})) if kind in kinds else ROPE[kind] for kind in ROPE
        },
        "sliding_window": defaults.sliding_window if window is None else 2 * (window - 1) if everywhere else window + 1,
        "use_bidirectional_attention": "all" if everywhere else None,
        "vocab_size": vocabulary,
        "enable_moe_block": bool(mixture),
    }
    if mixture:
        sizes = {"num_experts": mixture["experts"], "top_k_experts": mixture.get("top_k", 2)}
        config |= sizes | {"moe_intermediate_size": mixture["expert"].get("hidden", 1)}
    return config
