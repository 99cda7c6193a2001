"""SmolLM3 (Hugging Face, 2025) in transformers' files: Llama with layers without RoPE (Yang et al. 2025, arXiv 2501.18795)."""

from collections.abc import Mapping
from typing import Any

from pairform.assemblies.families.config import EndTokens, Token, checked
from pairform.assemblies.families.family import Family
from pairform.assemblies.families.gemma.common import branch
from pairform.assemblies.families.heads import decoder_only
from pairform.assemblies.families.llama import llama
from pairform.assemblies.families.llama.config import LlamaConfig
from pairform.assemblies.families.rope import rope_config
from pairform.assemblies.specs.layer_patches import with_layer_patches
from pairform.assemblies.specs.model import ModelSpec
from pairform.registry import Depth, PositiveFloat, PositiveInt, Problem, SpecError, shorten

THETA = 2_000_000.0
NO_ROPE = {"branches": {"self_attention": {"position": {"name": "none"}}}}


class SmolLM3Config(LlamaConfig):
    vocab_size: PositiveInt = 128_256
    hidden_size: PositiveInt = 2048
    num_hidden_layers: Depth = 36
    num_attention_heads: PositiveInt = 16
    num_key_value_heads: PositiveInt | None = 4
    max_position_embeddings: PositiveInt = 32_768
    pad_token_id: Token = 128_004
    bos_token_id: Token = 128_000
    eos_token_id: EndTokens = 128_001
    tie_word_embeddings: bool = True
    use_sliding_window: bool = False
    sliding_window: PositiveInt | None = None
    rope_theta: PositiveFloat | None = THETA
    no_rope_layers: list[int] | None = None
    no_rope_layer_interval: PositiveInt = 4
    layer_types: list[str] | None = None


KIND = llama.Kind("smollm3", "SmolLM3", SmolLM3Config, windows="some", mlp_bias=True)


def to_document(config: Mapping[str, Any]) -> dict[str, Any]:
    config = checked(SmolLM3Config, config)
    rotated = rotated_layers(config)
    if config["layer_types"] is None:
        windowed = config["use_sliding_window"] and config["sliding_window"] is not None
        config["layer_types"] = ["sliding_attention" if windowed and not rope else "full_attention" for rope in rotated]
    stack = with_layer_patches(llama.stack_document(KIND, config), [{} if rope else NO_ROPE for rope in rotated])
    return decoder_only(config, KIND.architectures, stack, softcap=None)


def rotated_layers(config: Mapping[str, Any]) -> list[bool]:
    """Whether each layer has RoPE. In `no_rope_layers` a 1 is a layer that has it."""
    depth, given = config["num_hidden_layers"], config["no_rope_layers"]
    if given is None:
        return [(layer + 1) % config["no_rope_layer_interval"] != 0 for layer in range(depth)]
    if len(given) < depth:
        raise SpecError(
            Problem("no_rope_layers", shorten(given), f"0 or 1 for each of {depth} layers, 1 for a layer with RoPE")
        )
    return [rope != 0 for rope in given[:depth]]


def to_config(spec: ModelSpec) -> dict[str, Any]:
    config = llama.to_config(KIND, spec)
    positions = [layer.self_attention.position for layer in spec.last.layers]
    rotated = [position.document() for position in positions if position is not None and position.name != "none"]
    config.pop("max_window_layers")
    return config | {
        "no_rope_layers": [int(position is not None and position.name != "none") for position in positions],
        "rope_parameters": rope_config(rotated[0] if rotated else {"theta": THETA}),
    }


def writes(spec: ModelSpec) -> bool:
    """For decoders with pre-norms of which some layers have no position, or whose windows are not as Mistral's: in some layers,
    or beside biases."""
    stack = spec.last
    if spec.assembly != "decoder_only" or stack.vision is not None or stack.layers[0].placement != "pre" or stack.qk_normed:
        return False
    attentions = [layer.self_attention for layer in stack.layers]
    positions = {"none" if attention.position is None else attention.position.name for attention in attentions}
    if stack.position is not None or not positions <= {"none", "rope"}:
        return False
    windowed = [attention.mask is not None and attention.mask.window is not None for attention in attentions]
    biases = {attention.bias for attention in attentions}
    biases |= {branch(layer, "feed_forward").get("bias", False) for layer in stack.layers}
    unlike_mistral = any(windowed) and "qkv" not in biases and (not all(windowed) or True in biases)
    return "none" in positions or unlike_mistral


FAMILIES = (Family("smollm3", llama.NAMES, to_document, to_config, writes),)
