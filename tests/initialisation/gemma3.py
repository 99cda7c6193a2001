"""Small Gemma 3 sources in transformers' layout, with the ids of the real vocabulary where a test needs them."""

from pathlib import Path
from typing import Any

import torch
import transformers

from tests.parity.compare import write

SCALED = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
}
"""Positions as in Gemma 3 from 4B on."""
TEXT: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "query_pre_attn_scalar": 12,
    "sliding_window": 5,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
    "initializer_range": 1.0,
    "rope_parameters": SCALED,
}
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
REAL: dict[str, Any] = {
    "vocab_size": 262208,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "layer_types": ["sliding_attention", "full_attention"],
}
"""The real vocabulary at the smallest width, for the edits that concern its ids."""
REAL_IDS = {"boi_token_index": 255999, "eoi_token_index": 256000, "image_token_index": 262144}
SMALL_IDS = {"boi_token_index": 4, "eoi_token_index": 5, "image_token_index": 6}


def text_source(folder: Path, *, seed: int = 0, dtype: torch.dtype = torch.float32, **changes: Any) -> Path:
    torch.manual_seed(seed)
    return write(folder, transformers.Gemma3ForCausalLM(transformers.Gemma3TextConfig(**{**TEXT, **changes})), dtype=dtype)


def picture_source(folder: Path, *, seed: int = 0, ids: dict[str, int] = SMALL_IDS, **changes: Any) -> Path:
    """Pictures of 16 x 16 pixels that become 4 tokens."""
    torch.manual_seed(seed)
    config = transformers.Gemma3Config(
        text_config={**TEXT, **changes}, vision_config=VISION, mm_tokens_per_image=4, initializer_range=1.0, **ids
    )
    model = transformers.Gemma3ForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in (*model.model.vision_tower.parameters(), *model.model.multi_modal_projector.parameters()):
            parameter.normal_(std=0.5)
    return write(folder, model)


def pixels(pictures: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(pictures, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
