"""Mixtral and Qwen3 MoE as transformers computes them, there and back, whichever way their files hold the experts."""

import random
from pathlib import Path
from typing import Any

import torch
import transformers

from tests.made_once import made_once
from tests.parity.compare import write

CLASSES = {"mixtral": "Mixtral", "qwen3_moe": "Qwen3Moe"}
SMALL: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "initializer_range": 0.5,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


@made_once
def create(folder: Path, /, family: str, kind: str = "ForCausalLM", *, seed: int = 0, **changes: Any) -> Path:
    torch.manual_seed(seed)
    own = {"moe_intermediate_size": 20} if family == "qwen3_moe" else {}
    config = getattr(transformers, f"{CLASSES[family]}Config")(**{**SMALL, **own, **changes})
    model = getattr(transformers, CLASSES[family] + kind)(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".experts." in name or name.endswith("mlp.gate.weight"):
                parameter.normal_(std=0.5)
    return write(folder, model)


def random_config(family: str, seed: int) -> dict[str, Any]:
    rng = random.Random(seed)
    heads, depth, experts = rng.choice([2, 4]), rng.randint(1, 4), rng.randint(2, 6)
    config: dict[str, Any] = {
        "hidden_size": heads * rng.choice([6, 8]),
        "intermediate_size": rng.choice([24, 40]),
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "num_key_value_heads": rng.choice([count for count in range(1, heads + 1) if heads % count == 0]),
        "head_dim": rng.choice([4, 8, 16]),
        "hidden_act": rng.choice(["silu", "silu", "gelu"]),
        "rms_norm_eps": rng.choice([1e-6, 1e-3]),
        "tie_word_embeddings": rng.random() < 0.3,
        "num_local_experts": experts,
        "num_experts_per_tok": rng.randint(1, experts),
        "sliding_window": rng.choice([None, 4]),
    }
    if family == "qwen3_moe":
        config |= {
            "attention_bias": rng.random() < 0.5,
            "norm_topk_prob": rng.random() < 0.5,
            "use_sliding_window": config["sliding_window"] is not None,
            **rng.choice([{}, {"decoder_sparse_step": 2}, {"mlp_only_layers": [0]}]),
        }
    return config
