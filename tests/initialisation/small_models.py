"""Documents of small models whose layers may be of any kind, and their folders."""

from pathlib import Path
from typing import Any

import torch

import pairform

TOKENS = {"pad": 0, "eos": 1, "bos": 2}
IDS = torch.tensor([[5, 6, 7, 8, 9, 3, 4], [9, 3, 4, 8, 2, 11, 12]])


def attention(name: str = "self_attention", **fields: Any) -> dict[str, Any]:
    return {"name": name, "heads": 4, "kv_heads": 2, "head_dim": 8, "position": {"name": "rope"}, **fields}


def stack(depth: int = 4, *, causal: bool = True, cross: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """`changes` patch the layer."""
    branches: dict[str, Any] = {
        "self_attention": attention(mask={"causal": causal}),
        "feed_forward": {"name": "mlp", "hidden": 24},
    }
    if cross is not None:
        branches["cross_attention"] = {"name": "cross_attention", "heads": 4, "head_dim": 8, **cross}
    order = ["self_attention", "cross_attention", "feed_forward"]
    layer = {"norm": {"name": "rmsnorm"}, "order": order, "branches": branches | changes.pop("branches", {}), **changes}
    return {"width": 32, "depth": depth, "embedding": {"name": "token"}, "layer": layer}


def alone(decoder: dict[str, Any]) -> dict[str, Any]:
    """A decoder-only language model."""
    head = {"name": "lm"}
    made = {"assembly": "decoder_only", "vocabulary": 50, "tokens": TOKENS, "decoder": decoder, "head": head}
    return made | {"initializer_range": 0.3}


def paired(encoder: dict[str, Any], decoder: dict[str, Any]) -> dict[str, Any]:
    return alone(decoder) | {"assembly": "encoder_decoder", "encoder": encoder}


def saved(folder: Path, document: dict[str, Any], seed: int = 0) -> Path:
    """A folder with a model of random weights."""
    pairform.save(pairform.build(document, seed=seed, dtype=torch.float64), folder)
    return folder
