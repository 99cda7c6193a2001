"""The vision tower (SigLIP, arXiv 2303.15343) and the projector of Gemma 3 and T5Gemma 2 in transformers' files."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pairform.assemblies.families.config import ACTIVATION_NAMES, Config, TokenId, activation_named, part_config
from pairform.assemblies.families.family import Row
from pairform.assemblies.families.gemma.common import branch
from pairform.assemblies.specs.model import VisionSpec
from pairform.registry import Depth, PositiveFloat, PositiveInt, Probability, Problem, SpecError

SIGLIP = "siglip_vision_model"


PICTURE_ALIASES = {f"{token}_token_id": f"{token}_token_index" for token in ("image", "boi", "eoi")}


class PicturesConfig(Config):
    """The fields beside `vision_config`."""

    aliases: ClassVar[Mapping[str, str]] = PICTURE_ALIASES

    mm_tokens_per_image: PositiveInt = 256
    image_token_index: TokenId = 262_144
    boi_token_index: TokenId | None = 255_999
    eoi_token_index: TokenId | None = 256_000


class VisionConfig(Config):
    """The tower. `vision_use_head` is ignored: these models read the patches, not the pooled image."""

    model_type: str = SIGLIP
    hidden_size: PositiveInt = 768
    intermediate_size: PositiveInt = 3072
    num_hidden_layers: Depth = 12
    num_attention_heads: PositiveInt = 12
    num_channels: PositiveInt = 3
    image_size: PositiveInt = 224
    patch_size: PositiveInt = 16
    hidden_act: str = "gelu_pytorch_tanh"
    layer_norm_eps: PositiveFloat = 1e-6
    attention_dropout: Probability = 0.0


def vision_rows(theirs: str, ours: str) -> tuple[Row, ...]:
    """The rows of tower and projector, the first match first in both directions.

    theirs: the prefix of their names.
    ours:   the stack that has them.
    """
    tower, projector = theirs + "vision_tower.", theirs + "multi_modal_projector."
    layer = tower + "encoder.layers.{layer}."
    own = ours + ".vision.tower."
    own_layer = own + "layers.{layer}."
    return (
        Row(tower + "embeddings.position_embedding.weight", own + "embedding.position"),
        Row(tower + "embeddings.patch_embedding.{tensor}", own + "embedding.{tensor}"),
        Row(layer + "layer_norm1.{tensor}", own_layer + "self_attention.pre_norm.{tensor}"),
        Row(layer + "layer_norm2.{tensor}", own_layer + "feed_forward.pre_norm.{tensor}"),
        # before the next row, which matches this name too
        Row(layer + "self_attn.out_proj.{tensor}", own_layer + "self_attention.block.o_proj.{tensor}"),
        Row(layer + "self_attn.{projection}_proj.{tensor}", own_layer + "self_attention.block.{projection}_proj.{tensor}"),
        Row(layer + "mlp.fc1.{tensor}", own_layer + "feed_forward.block.up_proj.{tensor}"),
        Row(layer + "mlp.fc2.{tensor}", own_layer + "feed_forward.block.down_proj.{tensor}"),
        Row(tower + "post_layernorm.{tensor}", own + "norm.{tensor}"),
        Row(projector + "mm_input_projection_weight", ours + ".vision.projector.weight"),
        Row(projector + "mm_soft_emb_norm.weight", ours + ".vision.projector.norm.weight"),
    )


def vision_document(config: Mapping[str, Any], *, attention_dropout: float | None = None) -> dict[str, Any]:
    """The document of our vision for a checked `PicturesConfig`; `attention_dropout` replaces the tower's own."""
    own = part_config(VisionConfig, config, "vision_config")
    if own["model_type"] != SIGLIP:
        raise SpecError(Problem("vision_config.model_type", repr(own["model_type"]), SIGLIP))
    attention = {
        "name": "self_attention",
        "heads": own["num_attention_heads"],
        "bias": True,
        "dropout": own["attention_dropout"] if attention_dropout is None else attention_dropout,
    }
    feed_forward = {
        "name": "mlp",
        "activation": activation_named(own["hidden_act"], "vision_config.hidden_act"),
        "hidden": own["intermediate_size"],
        "bias": True,
    }
    return {
        "tower": {
            "width": own["hidden_size"],
            "depth": own["num_hidden_layers"],
            "embedding": {
                "name": "patches",
                "image_size": own["image_size"],
                "patch_size": own["patch_size"],
                "channels": own["num_channels"],
            },
            "layer": {
                "norm": {"name": "layernorm", "eps": own["layer_norm_eps"]},
                "placement": "pre",
                "order": ["self_attention", "feed_forward"],
                "branches": {"self_attention": attention, "feed_forward": feed_forward},
            },
        },
        "projector": {
            "name": "average_pool",
            "tokens": config["mm_tokens_per_image"],
            "norm": {"name": "rmsnorm", "eps": own["layer_norm_eps"], "unit_offset": True},
        },
        "image_token": config["image_token_index"],
        "begin_token": config["boi_token_index"],
        "end_token": config["eoi_token_index"],
    }


def vision_config(vision: VisionSpec) -> dict[str, Any]:
    """The inverse of `vision_document`. What it cannot express shows when the result is read back."""
    tower = vision.tower
    layer = tower.layers[0]
    attention, feed_forward = branch(layer, "self_attention"), branch(layer, "feed_forward")
    embedding = tower.embedding.document()
    return {
        "mm_tokens_per_image": vision.tokens or 1,
        "image_token_index": vision.image_token,
        "boi_token_index": vision.begin_token,
        "eoi_token_index": vision.end_token,
        "vision_config": {
            "model_type": SIGLIP,
            "hidden_size": tower.width,
            "intermediate_size": feed_forward.get("hidden", 1),
            "num_hidden_layers": tower.depth,
            "num_attention_heads": attention.get("heads", 1),
            "num_channels": embedding.get("channels", 3),
            "image_size": embedding.get("image_size", 1),
            "patch_size": embedding.get("patch_size", 1),
            "hidden_act": ACTIVATION_NAMES[feed_forward.get("activation", "gelu_tanh")],
            "layer_norm_eps": layer.norm.document().get("eps", 1e-6),
            "attention_dropout": attention.get("dropout", 0.0),
            "vision_use_head": False,
        },
    }
