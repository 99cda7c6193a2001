"""Small checkpoint folders in transformers' real layout, written by its own `save_pretrained`."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3Config,
    Gemma3TextConfig,
    PreTrainedModel,
    T5Gemma2Config,
    T5GemmaConfig,
    T5GemmaForConditionalGeneration,
)
from transformers.models.gemma3 import modeling_gemma3
from transformers.models.t5gemma2 import modeling_t5gemma2

from tests.made_once import made_once

SMALL: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "query_pre_attn_scalar": 12,
    "sliding_window": 4,
    "initializer_range": 1.0,
}
"""Wide weights, a window shorter than the tests' sequences, grouped heads, a query scale unlike head_dim."""

SMALL3 = SMALL | {
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
    "rope_parameters": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1_000_000.0},
    },
}
"""A stack of Gemma 3 or T5Gemma 2: global layers differ in their positions too."""
VISION: dict[str, Any] = {
    "model_type": "siglip_vision_model",
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
    "vision_use_head": False,
}
PICTURES: dict[str, Any] = {
    "mm_tokens_per_image": 4,
    "boi_token_index": 4,
    "eoi_token_index": 5,
    "image_token_index": 6,
}
"""Pictures of 16 x 16 pixels, cut into 16 patches, that become 4 tokens."""


@made_once
def gemma2(folder: Path, /, *, seed: int = 0, dtype: torch.dtype = torch.float32, shard: str = "5GB", **changes: Any) -> Path:
    """A Gemma 2 folder; `changes` replace fields of `SMALL`."""
    torch.manual_seed(seed)
    model = Gemma2ForCausalLM(Gemma2Config(**{**SMALL, **changes}))
    randomise_norms(model)
    model.to(dtype).save_pretrained(folder, max_shard_size=shard)
    return folder


@made_once
def t5gemma(
    folder: Path,
    /,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    encoder: dict[str, Any] | None = None,
    decoder: dict[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """A T5Gemma folder; `encoder` and `decoder` replace fields of `SMALL`, `changes` those of the whole."""
    torch.manual_seed(seed)
    config = T5GemmaConfig(encoder={**SMALL, **(encoder or {})}, decoder={**SMALL, **(decoder or {})}, **changes)
    model = T5GemmaForConditionalGeneration(config)
    randomise_norms(model)
    model.to(dtype).save_pretrained(folder)
    return folder


@made_once
def gemma3_text(
    folder: Path,
    /,
    architecture: str = "Gemma3ForCausalLM",
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    **changes: Any,
) -> Path:
    """A Gemma 3 folder without pictures; `changes` replace fields of `SMALL3`."""
    torch.manual_seed(seed)
    return write_wide(folder, getattr(modeling_gemma3, architecture)(Gemma3TextConfig(**{**SMALL3, **changes})), dtype)


@made_once
def gemma3(
    folder: Path,
    /,
    architecture: str = "Gemma3ForConditionalGeneration",
    *,
    seed: int = 0,
    text: dict[str, Any] | None = None,
    vision: dict[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """A Gemma 3 folder with pictures; `text`, `vision` and `changes` replace fields of `SMALL3`, `VISION` and `PICTURES`."""
    torch.manual_seed(seed)
    parts = {"text_config": {**SMALL3, **(text or {})}, "vision_config": {**VISION, **(vision or {})}}
    return write_wide(folder, getattr(modeling_gemma3, architecture)(Gemma3Config(**parts, **PICTURES | changes)))


@made_once
def t5gemma2(
    folder: Path,
    /,
    architecture: str = "T5Gemma2ForConditionalGeneration",
    *,
    seed: int = 0,
    encoder: dict[str, Any] | None = None,
    decoder: dict[str, Any] | None = None,
    vision: dict[str, Any] | None = None,
    pictures: dict[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """A T5Gemma 2 folder; `encoder` and `decoder` replace fields of `SMALL3`, `vision` and `pictures` of those constants."""
    torch.manual_seed(seed)
    placed = PICTURES | (pictures or {})
    reading = {"text_config": {**SMALL3, **(encoder or {})}, "vision_config": {**VISION, **(vision or {})}, **placed}
    config = T5Gemma2Config(
        encoder=reading,
        decoder={**SMALL3, **(decoder or {})},
        **{"image_token_index": placed["image_token_index"], "initializer_range": 1.0} | changes,
    )
    return write_wide(folder, getattr(modeling_t5gemma2, architecture)(config))


def write_wide(folder: Path, model: PreTrainedModel, dtype: torch.dtype = torch.float32) -> Path:
    """Save a model that no part of leaves its input as it is, whatever transformers starts its parameters at."""
    randomise_norms(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "vision_tower" in name or "projector" in name or name.endswith(("bias", "eoi_embedding")):
                parameter.normal_(std=0.3)
    model.to(dtype).save_pretrained(folder)
    return folder


def randomise_norms(model: torch.nn.Module) -> None:
    """transformers starts norms at the identity, which would hide a wrong scale."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.normal_(std=0.3)
