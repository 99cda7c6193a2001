"""Small encoder-decoder pairs with wide weights, and texts to run them on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import pairform

VOCABULARY = 96
LOCAL = (3, 0)
"""The window of every second decoder layer, many times shorter than the tests' sources and targets."""
NORM: dict[str, Any] = {"name": "rmsnorm", "unit_offset": True}
PLACE = "self_attention"


def stack(width: int, own: Mapping[str, Any], window: tuple[int, int], **branches: Any) -> dict[str, Any]:
    """Two layers, a local and a full one."""
    return {
        "width": width,
        "depth": 2,
        "embedding": {"name": "token", "scale": "sqrt_width"},
        "layer": {
            "norm": NORM,
            "placement": "sandwich",
            "order": [PLACE, "cross_attention", "feed_forward"],
            "branches": {PLACE: own, **branches, "feed_forward": {"name": "gated", "hidden": 48}},
        },
        "cycle": [{"branches": {PLACE: {"mask": {"window": window}}}}, {}],
    }


def pair(
    attention: str = "merged", *, widths: tuple[int, int] = (32, 32), bridge: str | None = None, **model: Any
) -> dict[str, Any]:
    """An encoder beside a decoder whose attention to it is merged or separate; the head has a table of its own."""
    heads = {"heads": 4, "kv_heads": 2, "head_dim": 8, "qk_norm": NORM}
    own = heads | {"position": {"name": "rope", "theta": 100.0}}
    branches = {} if attention == "merged" else {"cross_attention": {"name": "cross_attention", **heads}}
    name = "merged_attention" if attention == "merged" else "self_attention"
    return {
        "assembly": "encoder_decoder",
        "vocabulary": VOCABULARY,
        "tokens": {"pad": 0, "eos": 1, "bos": 2},
        "encoder": stack(widths[0], own | {"name": "self_attention"}, (1, 2)),
        "decoder": stack(widths[1], own | {"name": name, "mask": {"causal": True}}, LOCAL, **branches),
        "head": {"name": "lm"},
        "initializer_range": 1.0,
        **({} if bridge is None else {"bridge": {"name": bridge}}),
        **model,
    }


def wide(document: Mapping[str, Any], dtype: torch.dtype = torch.float64) -> pairform.Model:
    """A model whose norms and biases are not at the identity, which would hide that one is skipped."""
    model = pairform.build(document, dtype=dtype, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or name.endswith("bias"):
                parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=dtype) * 0.3)
    return model


def texts(seed: int, lengths: tuple[int, ...]) -> list[Tensor]:
    """Tokens, none of them special, `[length]` each."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, VOCABULARY, (length,), generator=generator) for length in lengths]


@dataclass(frozen=True)
class Padded:
    """Texts as one batch, `[batch, length]` both; the mask is 1 at tokens."""

    ids: Tensor
    mask: Tensor


def padded(rows: list[Tensor], side: str) -> Padded:
    length = max(len(row) for row in rows)
    ids, mask = torch.zeros(len(rows), length, dtype=torch.long), torch.zeros(len(rows), length, dtype=torch.long)
    for index, row in enumerate(rows):
        place = slice(length - len(row), None) if side == "left" else slice(0, len(row))
        ids[index, place], mask[index, place] = row, 1
    return Padded(ids, mask)
