"""GPT-2 as transformers computes it, there and back."""

import random
from pathlib import Path
from typing import Any

import torch
import transformers

from tests.made_once import made_once
from tests.parity.compare import write

SMALL: dict[str, Any] = {
    "vocab_size": 96,
    "n_embd": 32,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": 64,
    "initializer_range": 0.5,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


@made_once
def create(folder: Path, /, kind: str = "LMHeadModel", *, seed: int = 0, **changes: Any) -> Path:
    torch.manual_seed(seed)
    model = getattr(transformers, f"GPT2{kind}")(transformers.GPT2Config(**{**SMALL, **changes}))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".ln_" in name:
                parameter.normal_(1.0, 0.3)
    return write(folder, model)


def random_config(seed: int) -> dict[str, Any]:
    rng = random.Random(seed)
    heads = rng.choice([1, 2, 4, 6])
    return {
        "n_embd": heads * rng.choice([5, 8, 16]),
        "n_inner": rng.choice([None, 24, 40]),
        "n_layer": rng.randint(1, 4),
        "n_head": heads,
        "activation_function": rng.choice(["gelu_new", "gelu_new", "gelu", "relu", "silu"]),
        "layer_norm_epsilon": rng.choice([1e-5, 1e-3]),
        "tie_word_embeddings": rng.random() < 0.6,
        "scale_attn_weights": rng.random() < 0.8,
        "resid_pdrop": rng.choice([0.0, 0.1]),
        "embd_pdrop": rng.choice([0.0, 0.2]),
        "attn_pdrop": rng.choice([0.0, 0.3]),
    }
