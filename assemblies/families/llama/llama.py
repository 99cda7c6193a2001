"""Llama (arXiv 2302.13971, 2407.21783) and the families that differ from it in a few options: Mistral (arXiv 2310.06825), Qwen2
(arXiv 2407.10671) and Qwen3 (arXiv 2505.09388), in transformers' files.

In half precision transformers rounds a norm's output before it is scaled, and we after; in float32 both are the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from pairform.assemblies.families.config import activation_named, checked
from pairform.assemblies.families.family import Family, NameTable
from pairform.assemblies.families.gemma import common as gemma
from pairform.assemblies.families.gemma.gemma2 import causal
from pairform.assemblies.families.heads import architectures, decoder_only, decoder_only_config
from pairform.assemblies.families.llama.config import LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config
from pairform.assemblies.families.rope import rope
from pairform.assemblies.families.rows import HEADS, PRE_NORMS, stack_rows
from pairform.assemblies.specs.model import ModelSpec
from pairform.registry import Problem, SpecError

LOCAL = "sliding_attention"
NAMES = NameTable(
    (*stack_rows("model.", "decoder", PRE_NORMS), *HEADS),
    unread=("model.layers.{layer}.self_attn.rotary_emb.",),
)
"""Files of 2023 hold the frequencies of positions too."""


@dataclass(frozen=True)
class Kind:
    """How one of these families differs from the others.

    classes:        the prefix of transformers' class names.
    windows:        on no layers, on all layers, or on those that the configuration says.
    attention_bias: whether projections have a bias; None uses config.attention_bias.
    mlp_bias:       whether config.mlp_bias is used.
    qk_norm:        whether queries and keys are normalised along head_dim.
    partial_rotary: whether config.partial_rotary_factor is used.
    without:        heads of ours for which transformers has no class.
    """

    model_type: str
    classes: str
    config: type[LlamaConfig]
    windows: Literal["none", "all", "some"] = "none"
    attention_bias: bool | Literal["qkv"] | None = None
    mlp_bias: bool = False
    qk_norm: bool = False
    partial_rotary: bool = False
    without: tuple[str, ...] = ()

    @property
    def architectures(self) -> dict[str, str]:
        return architectures(self.classes, without=self.without)


def to_document(kind: Kind, config: Mapping[str, Any]) -> dict[str, Any]:
    config = checked(kind.config, config)
    return decoder_only(config, kind.architectures, stack_document(kind, config), softcap=None)


def stack_document(kind: Kind, config: Mapping[str, Any]) -> dict[str, Any]:
    """The document of our stack for a checked configuration."""
    norm = {"name": "rmsnorm", "eps": config["rms_norm_eps"]}
    mask: dict[str, Any] = {"causal": config["is_causal"]}
    windowed = windowed_layers(kind, config)
    inclusive = not config["is_causal"]
    window = {"window": gemma.window_pair(config["sliding_window"], inclusive)} if any(windowed) else {}
    attention = {
        "name": "self_attention",
        "heads": config["num_attention_heads"],
        "kv_heads": config["num_key_value_heads"],
        "head_dim": config["head_dim"],
        "bias": config["attention_bias"] if kind.attention_bias is None else kind.attention_bias,
        "dropout": config["attention_dropout"],
        "position": {"name": "rope", **rope(config, partial=kind.partial_rotary)},
        "mask": mask | window if all(windowed) else mask,
    }
    feed_forward = {
        "name": "gated",
        "activation": activation_named(config["hidden_act"], "hidden_act"),
        "hidden": config["intermediate_size"],
        "bias": config["mlp_bias"] and kind.mlp_bias,
    }
    mixed = [layer for layer, local in enumerate(windowed) if local] if not all(windowed) else []
    patch = {"branches": {"self_attention": {"mask": window}}}
    return {
        "width": config["hidden_size"],
        "depth": config["num_hidden_layers"],
        "embedding": {"name": "token"},
        "layer": {
            "norm": norm,
            "placement": "pre",
            "order": ["self_attention", "cross_attention", "feed_forward"],
            "branches": {
                "self_attention": attention | ({"qk_norm": norm} if kind.qk_norm else {}),
                "feed_forward": feed_forward,
            },
        },
        "overrides": [{"layers": mixed, "patch": patch}] if mixed else [],
        "max_length": config["max_position_embeddings"],
    }


def windowed_layers(kind: Kind, config: Mapping[str, Any]) -> list[bool]:
    """Whether each layer has a window."""
    depth = config["num_hidden_layers"]
    if kind.windows == "none":
        return [False] * depth
    window = config["sliding_window"]
    if kind.windows == "all":
        return [window is not None] * depth
    if not config["use_sliding_window"]:
        window = None
    types = config["layer_types"]
    if types is None:
        return [window is not None and layer >= config["max_window_layers"] for layer in range(depth)]
    local = gemma.local_layers(types, depth)
    if any(local) and window is None:
        found = "nothing" if config["use_sliding_window"] else "a window that use_sliding_window turns off"
        raise SpecError(Problem("sliding_window", found, f"a number of tokens: some layers are {LOCAL}"))
    return local


def to_config(kind: Kind, spec: ModelSpec) -> dict[str, Any]:
    """config.json. What it cannot express shows when it is read back."""
    return to_stack_config(kind, spec) | decoder_only_config(spec, kind.architectures)


def to_stack_config(kind: Kind, spec: ModelSpec) -> dict[str, Any]:
    """`to_config` without the head."""
    stack = spec.last
    config = gemma.stack_config(stack, spec.vocabulary, inclusive=not causal(spec))
    types, bias, window = (config.pop(field) for field in ("layer_types", "attention_bias", "sliding_window"))
    window = window if LOCAL in types else None
    for field in ("attn_logit_softcapping", "query_pre_attn_scalar"):
        config.pop(field)
    config["hidden_act"] = config.pop("hidden_activation")
    if kind.attention_bias is None:
        config["attention_bias"] = bias
    if kind.mlp_bias:
        config["mlp_bias"] = gemma.branch(stack.layers[0], "feed_forward").get("bias", False)
    if kind.windows != "none":
        config["sliding_window"] = window
    if kind.windows == "some":
        config |= {"use_sliding_window": window is not None, "layer_types": types, "max_window_layers": stack.depth}
    if not causal(spec):
        config["is_causal"] = False
    return config


def writes(kind: Kind, spec: ModelSpec) -> bool:
    """For decoders with pre-norms only. Llama's if it can express all, since most programs read it."""
    stack, attentions = spec.last, [layer.self_attention for layer in spec.last.layers]
    if spec.assembly != "decoder_only" or stack.vision is not None or stack.layers[0].placement != "pre":
        return False
    if stack.qk_normed:
        return kind.qk_norm
    if any(attention.bias == "qkv" for attention in attentions):
        return kind.attention_bias == "qkv"
    windowed = any(attention.mask is not None and attention.mask.window is not None for attention in attentions)
    # transformers' LlamaConfig refuses a width that its heads do not divide; MistralConfig does not
    return kind.windows == ("all" if windowed or stack.width % attentions[0].heads else "none")


KINDS = (
    Kind("llama", "Llama", LlamaConfig, mlp_bias=True),
    Kind("mistral", "Mistral", MistralConfig, windows="all", attention_bias=False),
    Kind("qwen2", "Qwen2", Qwen2Config, windows="some", attention_bias="qkv"),
    Kind("qwen3", "Qwen3", Qwen3Config, windows="some", qk_norm=True),
)
FAMILIES = tuple(
    Family(kind.model_type, NAMES, partial(to_document, kind), partial(to_config, kind), partial(writes, kind))
    for kind in KINDS
)
