"""Small models that read pictures: an encoder-decoder, or a decoder alone."""

from typing import Any

import torch
from torch import Tensor

SIZE = 16
"""Of a picture, in pixels."""
IMAGE = 6
"""The image token; the ids from FIRST_WORD on are words, those below are special."""
FIRST_WORD = 7
VOCABULARY = 32
TOKENS = 4
"""Of one picture."""

NORM: dict[str, Any] = {"name": "rmsnorm", "unit_offset": True}


def document(
    assembly: str = "encoder_decoder",
    *,
    frozen: bool = True,
    pictures: bool = True,
    channels: int = 3,
    window: int | None = None,
    **vision: Any,
) -> dict[str, Any]:
    """`vision` replaces fields beside tower, projector and image token; with `pictures` off, there is none of it."""
    encoder = stack(causal=False)
    decoder = stack(causal=True, window=window)
    read = decoder if assembly == "decoder_only" else encoder
    if pictures:
        read["vision"] = {
            "tower": tower(channels),
            "projector": {"name": "average_pool", "tokens": TOKENS, "norm": NORM},
            "image_token": IMAGE,
            "frozen": frozen,
            **vision,
        }
    if assembly == "encoder_decoder":
        heads = decoder["layer"]["branches"]["self_attention"]["heads"]
        decoder["layer"]["branches"]["cross_attention"] = {"name": "cross_attention", "heads": heads}
        decoder["layer"]["order"].insert(1, "cross_attention")
    stacks = {"encoder": encoder, "decoder": decoder}
    return {
        "assembly": assembly,
        "vocabulary": VOCABULARY,
        "tokens": {"pad": 0, "eos": 1, "bos": 2},
        **{part: stacks[part] for part in stacks if assembly in ("encoder_decoder", f"{part}_only")},
        "head": {"name": "none"} if assembly == "encoder_only" else {"name": "lm"},
        "initializer_range": 1.0,
    }


def stack(*, causal: bool, window: int | None = None) -> dict[str, Any]:
    mask: dict[str, Any] = {"causal": causal} | ({} if window is None else {"window": [window, 0]})
    attention = {"name": "self_attention", "heads": 4, "qk_norm": NORM, "position": {"name": "rope"}, "mask": mask}
    branches = {"self_attention": attention, "feed_forward": {"name": "gated", "hidden": 48}}
    return {
        "width": 32,
        "depth": 2,
        "embedding": {"name": "token", "scale": "sqrt_width"},
        "layer": {"norm": NORM, "placement": "sandwich", "order": list(branches), "branches": branches},
    }


def tower(channels: int = 3) -> dict[str, Any]:
    branches = {
        "self_attention": {"name": "self_attention", "heads": 2, "bias": True},
        "feed_forward": {"name": "mlp", "hidden": 24, "bias": True},
    }
    return {
        "width": 16,
        "depth": 2,
        "embedding": {"name": "patches", "image_size": SIZE, "patch_size": 4, "channels": channels},
        "layer": {
            "norm": {"name": "layernorm", "eps": 1e-6},
            "placement": "pre",
            "order": list(branches),
            "branches": branches,
        },
    }


def text(rows: int = 2, length: int = 14) -> Tensor:
    """Words without pictures."""
    return torch.randint(FIRST_WORD, VOCABULARY, (rows, length))


def with_pictures(ids: Tensor, *places: tuple[int, int]) -> Tensor:
    """`ids` with a picture's tokens from each (row, column) on."""
    ids = ids.clone()
    for row, column in places:
        ids[row, column : column + TOKENS] = IMAGE
    return ids


def pixels(count: int) -> Tensor:
    return torch.randn(count, 3, SIZE, SIZE)
