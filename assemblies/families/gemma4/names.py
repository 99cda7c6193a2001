"""The tensors of Gemma 4."""

from pairform.assemblies.families.family import Fused, NameTable, Row
from pairform.assemblies.families.rows import HEADS, SANDWICH_NORMS, stack_rows
from pairform.assemblies.specs.model import ModelSpec

TOWERS = ("model.vision_tower.", "model.vision_embedder.", "model.embed_vision.", "model.audio_tower.", "model.embed_audio.")
"""Prefixes of what encodes pictures and sound."""
LAYER, OWN = "layers.{layer}.", "decoder.layers.{layer}."
BLOCK = OWN + "feed_forward.block."
EXPERT = BLOCK + "experts.{expert}."
OF_LAYERS = {
    "layer_scalar": OWN + "output_scale",
    "per_layer_input_gate.weight": OWN + "layer_input.gate_proj.weight",
    "per_layer_projection.weight": OWN + "layer_input.up_proj.weight",
    "post_per_layer_input_norm.weight": OWN + "layer_input.norm.weight",
}
OF_STACKS = {
    "embed_tokens_per_layer.weight": "decoder.layer_inputs.weight",
    "per_layer_model_projection.weight": "decoder.layer_inputs.projection.weight",
    "per_layer_projection_norm.weight": "decoder.layer_inputs.norm.weight",
}
OF_MIXTURES = {
    "router.proj.weight": BLOCK + "router",
    "router.scale": BLOCK + "router_norm.weight",
    "router.per_expert_scale": BLOCK + "expert_scale",
    "mlp.{projection}_proj.weight": BLOCK + "shared.{projection}_proj.weight",
    "pre_feedforward_layernorm.weight": BLOCK + "shared_pre_norm.weight",
    "post_feedforward_layernorm_1.weight": BLOCK + "shared_post_norm.weight",
    "pre_feedforward_layernorm_2.weight": BLOCK + "pre_norm.weight",
    "post_feedforward_layernorm_2.weight": BLOCK + "post_norm.weight",
    "post_feedforward_layernorm.weight": BLOCK + "output_norm.weight",
}


def rows(prefix: str, mixture: bool) -> tuple[Row | Fused, ...]:
    """prefix: of the language model's tensors. mixture: whether experts run beside the dense feed-forward layers."""
    layer = prefix + LAYER
    own: tuple[Row | Fused, ...] = (
        *(Row(prefix + theirs, ours) for theirs, ours in OF_STACKS.items()),
        *(Row(layer + theirs, ours) for theirs, ours in OF_LAYERS.items()),
    )
    if mixture:
        own = (
            *own,
            *(Row(layer + theirs, ours) for theirs, ours in OF_MIXTURES.items()),
            Fused(layer + "experts.gate_up_proj", tuple(f"{EXPERT}{side}_proj.weight" for side in ("gate", "up"))),
            Fused(layer + "experts.down_proj", (EXPERT + "down_proj.weight",)),
        )
    return (*own, *stack_rows(prefix, "decoder", SANDWICH_NORMS), *HEADS)


def unread(prefix: str, spec: ModelSpec) -> tuple[str, ...]:
    """Tensors of keys and values in layers that share those of others: published files have them."""
    sharing = [index for index, layer in enumerate(spec.last.layers) if layer.self_attention.share_keys]
    parts = ("k_proj", "v_proj", "k_norm", "v_norm")
    return tuple(f"{prefix}layers.{index}.self_attn.{part}." for index in sharing for part in parts)


def is_mixture(spec: ModelSpec) -> bool:
    block = spec.last.layers[0].branches.get("feed_forward")
    return block is not None and block.name == "mixture"


def names(spec: ModelSpec) -> NameTable:
    return NameTable(rows("model.", is_mixture(spec)), unread=unread("model.", spec))


def names_beside_towers(spec: ModelSpec) -> NameTable:
    prefix = "model.language_model."
    return NameTable(rows(prefix, is_mixture(spec)), unread=(*TOWERS, *unread(prefix, spec)))
