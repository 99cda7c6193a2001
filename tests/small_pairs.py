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


def sharing_pair(*, merged: bool = False, **changes: Any) -> pairform.ModelSpec:
    """A pair of Gemma 4's kind: the second half of each stack attends to the keys and values of the first half's layers.

    Layers have inputs of their own and scale their outputs. Local and global layers alternate, with different heads.
    """
    norm = {"name": "rmsnorm"}
    attention = SIZES | {
        "name": "self_attention",
        "scale": 1.0,
        "qk_norm": norm,
        "value_norm": norm | {"affine": False},
        "position": {"name": "rope"},
    }
    wide = {"head_dim": 16, "keys_as_values": True, "position": {"theta": 1e6}, "mask": {"window": None}}
    shares = {"share_keys": True, "keys_as_values": False, "value_norm": None}
    own: dict[str, Any] = {
        "encoder": attention | {"mask": {"window": [4, 4]}},
        "decoder": attention
        | {"name": "merged_attention" if merged else "self_attention"}
        | {"mask": {"causal": True, "window": [4, 0]}},
    }
    cross = {} if merged else {"cross_attention": SIZES | {"name": "cross_attention", "qk_norm": norm}}
    model: dict[str, Any] = {"assembly": "encoder_decoder", "vocabulary": 97, "tokens": {"pad": 0, "eos": 1, "bos": 2}}
    for name, scale in (("encoder", "learned"), ("decoder", "stored")):
        branches = {
            "self_attention": own[name],
            **(cross if name == "decoder" else {}),
            "feed_forward": {"name": "gated", "hidden": 48},
        }
        model[name] = {
            "width": 32,
            "depth": 4,
            "embedding": {"name": "token", "scale": "sqrt_width"},
            "layer": {"norm": norm, "placement": "sandwich", "output_scale": scale, "order": [*branches], "branches": branches},
            "cycle": [{}, {"branches": {"self_attention": wide}}],
            "overrides": [{"layers": [2, 3], "patch": {"branches": {"self_attention": shares}}}],
            "layer_input": {"channels": 4, "norm": norm},
        }
    model |= {"head": {"name": "lm", "tie": "decoder", "softcap": 30.0}, "initializer_range": 0.3}
    return pairform.patch(pairform.load_spec(model), changes)
