"""Small checkpoint folders in transformers' real layout, written by its own `save_pretrained`."""

from pathlib import Path
from typing import Any

import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, T5GemmaConfig, T5GemmaForConditionalGeneration

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


def gemma2(folder: Path, *, seed: int = 0, dtype: torch.dtype = torch.float32, shard: str = "5GB", **changes: Any) -> Path:
    """A Gemma 2 folder; `changes` replace fields of `SMALL`."""
    torch.manual_seed(seed)
    model = Gemma2ForCausalLM(Gemma2Config(**{**SMALL, **changes}))
    randomise_norms(model)
    model.to(dtype).save_pretrained(folder, max_shard_size=shard)
    return folder


def t5gemma(
    folder: Path,
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


def randomise_norms(model: torch.nn.Module) -> None:
    """transformers starts norms at the identity, which would hide a wrong scale."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.normal_(std=0.3)
