"""Small pairs of T5Gemma's and T5Gemma 2's kind, and tokens for them."""

from typing import Any

import torch
from torch import Tensor

import pairform

SIZES: dict[str, Any] = {"heads": 4, "kv_heads": 2, "head_dim": 8}


def small_pair(preset: str = "t5gemma-b-b", *, depth: int = 2, head_dim: int = 8, **changes: Any) -> pairform.ModelSpec:
    """The preset with few, narrow layers, local and global in turn, without pictures; `changes` patch it further."""
    spec = pairform.load_spec(preset)
    small: dict[str, Any] = {"vocabulary": 97, "initializer_range": 0.3}
    for name, stack in spec.stacks.items():
        branches = {
            branch: SIZES | {"head_dim": head_dim} if "attention" in branch else {"hidden": 48}
            for branch in stack.layer.present
        }
        windows = ([4, 4] if name == "encoder" else [4, 0], None)
        cycle = [{"branches": {"self_attention": {"mask": {"window": window}}}} for window in windows]
        small[name] = {"width": 32, "depth": depth, "layer": {"branches": branches}, "cycle": cycle, "vision": None}
    return pairform.patch(pairform.patch(spec, small), changes)


def tokens(seed: int = 0, *, rows: int = 2, length: int = 11) -> Tensor:
    """Random tokens, none of them special."""
    return torch.randint(3, 97, (rows, length), generator=torch.Generator().manual_seed(seed))
