"""Phi-3 as transformers computes it, there and back, and beyond the length at which LongRoPE changes."""

import random
from pathlib import Path
from typing import Any

import torch
import transformers

from tests.made_once import made_once
from tests.parity.compare import write

SMALL: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 1.0,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


@made_once
def create(folder: Path, /, kind: str = "ForCausalLM", *, seed: int = 0, **changes: Any) -> Path:
    torch.manual_seed(seed)
    config = transformers.Phi3Config(**{**SMALL, **changes})
    return write(folder, getattr(transformers, f"Phi3{kind}")(config))


def random_config(seed: int) -> dict[str, Any]:
    """LongRoPE on every row, on none, or none; a part of each head rotated; a window or none."""
    rng = random.Random(seed)
    heads, width = rng.choice([2, 4, 6]), rng.choice([8, 16])
    fraction = rng.choice([1.0, 0.5, 0.75])
    pairs = int(width * fraction) // 2
    longrope = {
        "rope_type": "longrope",
        "short_factor": [rng.uniform(1, 2) for _ in range(pairs)],
        "long_factor": [rng.uniform(1, 9) for _ in range(pairs)],
        **rng.choice([{}, {"attention_factor": 1.3}, {"factor": 4.0}]),
    }
    scaling = rng.choice([{"rope_type": "default"}, longrope, longrope])
    return {
        "hidden_size": heads * width,
        "intermediate_size": rng.choice([24, 40]),
        "num_hidden_layers": rng.randint(1, 4),
        "num_attention_heads": heads,
        "num_key_value_heads": rng.choice([count for count in range(1, heads + 1) if heads % count == 0]),
        "hidden_act": rng.choice(["silu", "gelu", "relu"]),
        "rms_norm_eps": rng.choice([1e-6, 1e-3]),
        "tie_word_embeddings": rng.random() < 0.5,
        "sliding_window": rng.choice([None, 4]),
        "resid_pdrop": rng.choice([0.0, 0.1]),
        "max_position_embeddings": 128,
        "original_max_position_embeddings": rng.choice([3, 64]),
        "rope_parameters": {"rope_theta": rng.choice([100.0, 10_000.0]), "partial_rotary_factor": fraction, **scaling},
    }
