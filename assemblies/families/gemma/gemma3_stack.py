"""One stack whose local and global layers differ in positions, as the configurations of Gemma 3 and T5Gemma 2 describe it.

`attn_logit_softcapping` is not read, with a warning: transformers stores it for these models and never applies it.
"""

from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from pairform.assemblies.families.config import RopeConfig, StackConfig, warn_unread
from pairform.assemblies.families.gemma import common as gemma
from pairform.assemblies.families.rope import rope, rope_config
from pairform.assemblies.specs.model import StackSpec
from pairform.assemblies.specs.stack import shortest_cycle
from pairform.registry import LIMIT, PositiveFloat, PositiveInt, Problem, SpecError, shorten

LOCAL, GLOBAL = "sliding_attention", "full_attention"
THETA = {LOCAL: 10_000.0, GLOBAL: 1_000_000.0}
OLDER_THETA = {LOCAL: "rope_local_base_freq", GLOBAL: "rope_theta"}

Reach = Literal["past", "both", "half", "each"]
"""How `sliding_window` counts. past: tokens up to the query itself (causal); both: all that a query sees (T5Gemma 2's encoder);
half: twice as many as it sees to each side (Gemma 3 with use_bidirectional_attention); each: tokens to each side (Gemma 3 with
is_causal: false)."""


class RopeByType(RopeConfig):
    full_attention: RopeConfig | None = None
    sliding_attention: RopeConfig | None = None


class Gemma3StackConfig(StackConfig):
    """One stack, with transformers' defaults for Gemma 3 and T5Gemma 2."""

    vocab_size: PositiveInt = 262_208
    max_position_embeddings: PositiveInt = 131_072
    final_logit_softcapping: PositiveFloat | None = None
    attn_logit_softcapping: PositiveFloat | None = None
    rope_parameters: RopeByType | None = None
    rope_local_base_freq: PositiveFloat | None = None
    sliding_window: Annotated[int, Field(ge=0, lt=LIMIT)] | None = 4096
    sliding_window_pattern: PositiveInt = 6
    use_bidirectional_attention: bool | None = None


def stack_document(config: Mapping[str, Any], *, reach: Reach, dropout: float, attention_dropout: float) -> dict[str, Any]:
    """The document of our stack for a checked configuration. Its template is the local layer."""
    if config["attn_logit_softcapping"] is not None:
        warn_unread("attn_logit_softcapping", config["attn_logit_softcapping"], "the family has no softcap in attention.")
    types = layer_types(config)
    local = LOCAL if LOCAL in types else GLOBAL
    gemma.local_layers(types, config["num_hidden_layers"])
    # windows, positions and softcap are not those of Gemma 2: left out here, and set below
    plain = {
        **config,
        "layer_types": [GLOBAL] * config["num_hidden_layers"],
        "sliding_window": None,
        "attn_logit_softcapping": None,
        "rope_parameters": None,
        "rope_scaling": None,
    }
    document = gemma.stack_document(plain, causal=reach == "past", dropout=dropout, attention_dropout=attention_dropout)
    attention = document["layer"]["branches"]["self_attention"]
    attention["qk_norm"] = document["layer"]["norm"]
    attention["position"] = position(config, local)
    if local == LOCAL:
        attention["mask"]["window"] = window_pair(config["sliding_window"], reach)
    if GLOBAL in types and local == LOCAL:
        patch = global_layer(attention["position"], position(config, GLOBAL))
        document["cycle"] = shortest_cycle([{} if kind == LOCAL else patch for kind in types])
    return document


def layer_types(config: Mapping[str, Any]) -> list[str]:
    depth, period = config["num_hidden_layers"], config["sliding_window_pattern"]
    types: list[str] | None = config["layer_types"]
    if types is None:
        return [LOCAL if (layer + 1) % period else GLOBAL for layer in range(depth)]
    return types


def global_layer(local: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The merge patch that makes a local layer a global one."""
    scaling = own["scaling"] if own["scaling"] != local["scaling"] else None
    if scaling is not None:
        # None removes the fields that the other scaling does not have
        scaling = dict.fromkeys(local["scaling"].keys() - scaling.keys()) | scaling
    turned = {"name": "rope", "theta": own["theta"]} | ({} if scaling is None else {"scaling": scaling})
    return {"branches": {"self_attention": {"position": turned, "mask": {"window": None}}}}


def position(
    config: Mapping[str, Any],
    kind: str,
    thetas: Mapping[str, float] = THETA,
    older_thetas: Mapping[str, str] = OLDER_THETA,
    scaled: Collection[str] = (GLOBAL,),
) -> dict[str, Any]:
    """Of layers of one kind, from `rope_parameters` or from older files' fields.

    thetas:       the defaults by kind.
    older_thetas: the fields of older files for them.
    scaled:       the kinds that the older field `rope_scaling` is for.
    """
    by_type = config["rope_parameters"] or {}
    if any(by_type.get(field) is not None for field in ("rope_type", "type", "rope_theta", "factor")):
        raise SpecError(Problem("rope_parameters", shorten(by_type), f"an object for each of {GLOBAL} and {LOCAL}"))
    older = config["rope_scaling"] if kind in scaled else None
    parameters = {**(by_type.get(kind) or {}), **{key: value for key, value in (older or {}).items() if value is not None}}
    parameters["rope_theta"] = parameters.get("rope_theta") or config.get(older_thetas.get(kind, "")) or thetas[kind]
    length = config["max_position_embeddings"]
    given = {"rope_parameters": parameters, "max_position_embeddings": length}
    return {"name": "rope", **rope(given, f"rope_parameters.{kind}")}


def window_pair(width: int | None, reach: Reach) -> list[int]:
    """How many tokens a query sees to its left and right."""
    if width is None or (width == 0 and reach != "half"):
        found = "nothing" if width is None else "0"
        raise SpecError(Problem("sliding_window", found, f"a number of tokens: some layers are {LOCAL}"))
    if reach == "both":
        # the query itself is one of the tokens: 512 are 255 on the left and 256 on the right
        return [(width + 1) // 2 - 1, width // 2]
    return [{"past": width - 1, "half": width // 2, "each": width}[reach]] * 2


def window_width(window: tuple[int, int], reach: Reach) -> int:
    """The inverse of `window_pair`."""
    left, right = window
    return {"past": left + 1, "each": left, "both": left + right + 1, "half": 2 * left}[reach]


def stack_config(stack: StackSpec, vocabulary: int, reach: Reach) -> dict[str, Any]:
    """The inverse. What it cannot express shows when the result is read back."""
    config = gemma.stack_config(stack, vocabulary)
    attentions = [gemma.branch(layer, "self_attention") for layer in stack.layers]
    kinds = dict(reversed(list(zip(config["layer_types"], attentions, strict=True))))  # the first of each kind stays
    window = kinds[LOCAL]["mask"]["window"] if LOCAL in kinds else None
    return config | {
        "max_position_embeddings": stack.max_length or Gemma3StackConfig().max_position_embeddings,
        "rope_parameters": {
            kind: rope_config(kinds.get(kind, {}).get("position") or {"theta": THETA[kind]}) for kind in (GLOBAL, LOCAL)
        },
        "sliding_window": config["sliding_window"] if window is None else window_width(window, reach),
    }
