"""EmbeddingGemma 2 in transformers' files: an encoder with Gemma 4's layers and a head that embeds a text.

transformers projects each token's hidden states, and sentence-transformers averages and normalises them. Here both are one
head, `sentence_embedding`; the average of projections is the projection of the average. Of a folder with pictures and sound
the text encoder alone is read.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pairform.assemblies.families.config import ACTIVATION_NAMES, HeadConfig, checked, part_config, require_is_causal
from pairform.assemblies.families.family import Family, NameTable, Row
from pairform.assemblies.families.gemma.common import activation, branch, local_layers
from pairform.assemblies.families.gemma.gemma3_stack import GLOBAL, LOCAL, THETA, Gemma3StackConfig
from pairform.assemblies.families.gemma4.stack import OVERRIDES, layer_number, position
from pairform.assemblies.families.rope import rope_config
from pairform.assemblies.families.rows import SANDWICH_NORMS, stack_rows
from pairform.assemblies.families.tokens import tokens_config, tokens_document
from pairform.assemblies.specs.model import ModelSpec
from pairform.assemblies.specs.stack import shortest_cycle
from pairform.registry import Depth, PositiveInt, Problem, SpecError, shorten

ROPE = {kind: {"rope_type": "default", "rope_theta": theta} for kind, theta in THETA.items()}
ARCHITECTURES = ("EmbeddingGemma2TextModel", "EmbeddingGemma2Model")
LAYER = "layers.{layer}."
OWN = "encoder.layers.{layer}."
NAMES = NameTable(
    (
        *stack_rows("", "encoder", SANDWICH_NORMS),
        Row(LAYER + "layer_scalar", OWN + "output_scale"),
        Row(LAYER + "ple_block.per_layer_input_gate.weight", OWN + "layer_input.gate_proj.weight"),
        Row(LAYER + "ple_block.per_layer_projection.weight", OWN + "layer_input.up_proj.weight"),
        Row(LAYER + "ple_block.post_per_layer_input_norm.weight", OWN + "layer_input.norm.weight"),
        Row("ple.per_layer_model_projection.weight", "encoder.layer_inputs.projection.weight"),
        Row("ple.per_layer_projection_norm.weight", "encoder.layer_inputs.norm.weight"),
        Row("embedding_projection.weight", "head.proj.weight"),
    ),
    spellings=(("language_model.", ""),),
    unread=("vision_tower.", "audio_tower.", "embed_vision.", "embed_audio."),
)


class EmbeddingGemma2Config(Gemma3StackConfig):
    """The text encoder, with transformers' defaults."""

    vocab_size: PositiveInt = 262_144
    hidden_size: PositiveInt = 512
    intermediate_size: PositiveInt = 2048
    num_hidden_layers: Depth = 24
    num_attention_heads: PositiveInt = 4
    num_key_value_heads: PositiveInt = 2
    hidden_activation: str = "gelu_pytorch_tanh"
    max_position_embeddings: PositiveInt = 262_144
    is_causal: bool = False
    sliding_window: PositiveInt = 512
    hidden_size_per_layer_input: PositiveInt = 512
    embedding_dim: PositiveInt = 768
    global_head_dim: PositiveInt = 512
    num_global_key_value_heads: PositiveInt = 1
    per_layer_config: dict[str, dict[str, Any]] | None = None


def to_document(config: Mapping[str, Any]) -> dict[str, Any]:
    return document_of(checked(HeadConfig, checked(EmbeddingGemma2Config, config)))


def with_towers_to_document(config: Mapping[str, Any]) -> dict[str, Any]:
    config = checked(HeadConfig, {"is_causal": False} | dict(config))
    require_is_causal(config, False)
    return document_of(part_config(EmbeddingGemma2Config, config, "text_config") | {"architectures": config["architectures"]})


def document_of(config: Mapping[str, Any]) -> dict[str, Any]:
    named = config["architectures"]
    if named is not None and named not in [[known] for known in ARCHITECTURES]:
        raise SpecError(Problem("architectures", repr(named), f"one of {', '.join(ARCHITECTURES)}"))
    require_is_causal(config, False)
    norm = {"name": "rmsnorm", "eps": config["rms_norm_eps"]}
    attention = {
        "name": "self_attention",
        "heads": config["num_attention_heads"],
        "kv_heads": config["num_key_value_heads"],
        "head_dim": config["head_dim"],
        "scale": 1.0,
        "qk_norm": norm,
        "value_norm": norm | {"affine": False},
        "bias": config["attention_bias"],
        "dropout": config["attention_dropout"],
        "position": position(config, LOCAL, ROPE),
        "mask": {"causal": False, "window": [config["sliding_window"]] * 2},
    }
    gated = {"name": "gated", "activation": activation(config), "hidden": config["intermediate_size"]}
    return {
        "assembly": "encoder_only",
        "vocabulary": config["vocab_size"],
        "tokens": tokens_document(config),
        "encoder": {
            "width": config["hidden_size"],
            "depth": config["num_hidden_layers"],
            "embedding": {"name": "token", "scale": "sqrt_width"},
            "layer_input": {
                "channels": config["hidden_size_per_layer_input"],
                "table": False,
                "activation": activation(config),
                "norm": norm,
            },
            "layer": {
                "norm": norm,
                "placement": "sandwich",
                "order": ["self_attention", "feed_forward"],
                "branches": {"self_attention": attention, "feed_forward": gated},
                "output_scale": "stored",
            },
            "cycle": shortest_cycle(layer_patches(config)),
            "max_length": config["max_position_embeddings"],
        },
        "head": {"name": "sentence_embedding", "projection": config["embedding_dim"]},
        "initializer_range": config["initializer_range"],
    }


def layer_patches(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What each layer has of its own: global ones their position and heads, and all what `per_layer_config` says."""
    depth, period, types = config["num_hidden_layers"], config["sliding_window_pattern"], config["layer_types"]
    if types is None:
        types = [LOCAL if (layer + 1) % period else GLOBAL for layer in range(depth)]
    local_layers(types, depth)
    types = [*types[:-1], GLOBAL]  # as transformers has it, whatever the file says
    wide = {"head_dim": config["global_head_dim"], "num_key_value_heads": config["num_global_key_value_heads"]}
    given = config["per_layer_config"]
    own = {} if given is None else {layer_number(key, depth): fields for key, fields in given.items()}
    turned = position(config, GLOBAL, ROPE)
    if turned["scaling"] == position(config, LOCAL, ROPE)["scaling"]:
        turned.pop("scaling")
    patches = []
    for layer, kind in enumerate(types):
        fields = own.get(layer, {}) if given is not None else wide if kind == GLOBAL else {}
        if unknown := fields.keys() - OVERRIDES.keys():
            place = f"per_layer_config.{layer}"
            raise SpecError(Problem(place, shorten(sorted(unknown)), f"{' and '.join(OVERRIDES)} alone"))
        attention: dict[str, Any] = {OVERRIDES[field]: value for field, value in fields.items()}
        if kind == GLOBAL:
            attention |= {"position": turned, "mask": {"window": None}}
        patches.append({"branches": {"self_attention": attention}} if attention else {})
    return patches


def to_config(spec: ModelSpec) -> dict[str, Any]:
    """The inverse. What it cannot express shows when the result is read back."""
    stack, head = spec.last, spec.head.document()
    layers = [branch(layer, "self_attention") for layer in stack.layers]
    windows = [attention.get("mask", {}).get("window") for attention in layers]
    first = layers[0]
    feed_forward = branch(stack.layers[0], "feed_forward")
    kinds = {LOCAL if window else GLOBAL: attention for window, attention in zip(windows, layers, strict=True)}
    heads = {"head_dim": first.get("head_dim"), "num_key_value_heads": first.get("kv_heads")}
    fields = [{theirs: attention.get(ours) for theirs, ours in OVERRIDES.items()} for attention in layers]
    act = feed_forward.get("activation", "gelu_tanh")
    channels = None if stack.layer_input is None else stack.layer_input.channels
    return tokens_config(spec) | {
        "architectures": [ARCHITECTURES[0]],
        "attention_bias": bool(first.get("bias", False)),
        "attention_dropout": first.get("dropout", 0.0),
        "embedding_dim": head.get("projection") or stack.width,
        "hidden_activation": ACTIVATION_NAMES.get(act, act),
        "hidden_size": stack.width,
        "hidden_size_per_layer_input": channels or 1,
        "intermediate_size": feed_forward.get("hidden", 1),
        "layer_types": [LOCAL if window else GLOBAL for window in windows],
        "max_position_embeddings": stack.max_length or 262_144,
        "num_attention_heads": first.get("heads", 1),
        "num_hidden_layers": stack.depth,
        "per_layer_config": {f"{layer:02d}": own for layer, own in enumerate(fields) if own != heads},
        "rms_norm_eps": stack.layer.norm.document().get("eps", 1e-6),
        "rope_parameters": {
            kind: rope_config(kinds.get(kind, {}).get("position") or {"theta": THETA[kind]}) for kind in (GLOBAL, LOCAL)
        },
        "sliding_window": next((window[0] for window in windows if window), 512),
        "vocab_size": spec.vocabulary,
        **heads,
    }


def writes(spec: ModelSpec) -> bool:
    """Encoders that embed a text and, as Gemma 4, normalise values."""
    normed = spec.last.layers[0].self_attention.value_norm is not None
    return spec.assembly == "encoder_only" and normed and spec.head.name == "sentence_embedding"


TEXT = Family("embedding_gemma2_text", NAMES, to_document, to_config, writes, base_prefix="")
FAMILIES = (
    TEXT,
    replace(TEXT, model_type="embedding_gemma2", to_document=with_towers_to_document, writes=lambda spec: False),
)
