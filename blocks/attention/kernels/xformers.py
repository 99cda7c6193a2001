"""xformers' memory_efficient_attention, from the package `mslk`, its present home, or from `xformers`."""

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from pairform.blocks.attention.kernels.arguments import AttentionCall, Output, Parts
from pairform.blocks.attention.kernels.biases import average_fully_masked, join, mask_bias
from pairform.blocks.attention.kernels.variable_length import Runs, gathered, runs_of, scattered
from pairform.blocks.functional.constants import constant

PLACES = {"mslk": "mslk.attention.fmha", "xformers": "xformers.ops.fmha"}
"""The packages that contain it, the preferred one first, and the module in each."""
ALIGNED = 8
"""The row length of a dense bias in memory must be a multiple of this."""


def xformers(queries: Float[Tensor, "batch heads q head_dim"], keys: Parts, values: Parts, call: AttentionCall) -> Output:
    """Uses the package's bias classes for the masks that they can represent, otherwise a dense bias, made once per forward
    pass. Padding is removed first. With a window, the output at padded queries is zero; no other token attends to them."""
    batch, heads, length, _ = queries.shape
    kv_heads = keys[0].shape[1]

    def lower() -> tuple[Runs | None, Any]:
        runs = runs_of(call.mask, batch, queries.device)
        bias = None if runs is None else bias_class(runs, queries.device)
        return (runs, bias) if runs is not None and bias is not NO_CLASS else (None, None)

    runs, bias = call.mask.once("xformers", lower)
    if runs is None:
        bias = written_bias(call, queries, kv_heads)
        tokens = [rearrange(part, "b h l d -> b l h d") for part in (queries, join(keys, 2), join(values, 2))]
    else:
        (own_keys,), (own_values,) = keys, values
        packed = [gathered(queries, runs.queries), gathered(own_keys, runs.keys), gathered(own_values, runs.keys)]
        # the block-diagonal classes take all runs as one row
        rows = batch if runs.queries is None else 1
        tokens = [rearrange(part, "(b l) h d -> b l h d", b=rows) for part in packed]
    # xformers' five-dimensional form: query heads grouped by the key head that they share, keys expanded without a copy
    grouped = [rearrange(part, "b l (kv g) d -> b l kv g d", kv=kv_heads) for part in tokens]
    group = heads // kv_heads
    expanded = [grouped[0], *(part.expand(-1, -1, -1, group, -1) for part in grouped[1:])]
    mixed = fmha().memory_efficient_attention(*expanded, attn_bias=bias, p=call.dropout, scale=call.scale)
    mixed = rearrange(mixed, "b l kv g d -> (b l) (kv g) d")
    mixed = scattered(mixed, None if runs is None else runs.queries, batch, length)
    return average_fully_masked(mixed, values, call.mask), None


NO_CLASS = object()
"""Stands for runs that no bias class can represent."""


def bias_class(runs: Runs, device: torch.device) -> Any:
    """The bias object for runs: None if each query attends to its whole run, `NO_CLASS` if there is no such class."""
    biases = fmha().attn_bias
    left, right = runs.window
    if runs.queries is None:
        count = max(runs.key_lengths)
        if (left, right) == (None, None):
            return None
        if right != 0:
            # the length stands for no limit on that side
            return biases.LocalAttentionFromBottomRightMask(count if left is None else left, count if right is None else right)
        # these windows count the query's own token
        causal = biases.LowerTriangularFromBottomRightMask()
        return causal if left is None else causal.make_local_attention(left + 1)
    blocks = biases.BlockDiagonalMask.from_seqlens(runs.query_lengths, runs.key_lengths, device=device)
    if (left, right) == (None, None):
        return blocks
    if right != 0:
        return NO_CLASS
    return blocks.make_causal_from_bottomright() if left is None else blocks.make_local_attention_from_bottomright(left + 1)


def written_bias(call: AttentionCall, queries: Tensor, kv_heads: int) -> Tensor | None:
    """The mask as a dense bias, `[batch, kv_heads, groups, q, k]`, of which only `[batch, 1, 1, q, k]` is in memory."""

    def make() -> Tensor | None:
        bias = mask_bias(call.mask, queries)
        if bias is None:
            return None
        length = bias.shape[-1]
        return functional.pad(bias, (0, -length % ALIGNED))[:, :, None, :, :length]

    bias = call.mask.once(("aligned bias", queries.dtype), make)
    if bias is None:
        return None
    batch, heads, _, _ = queries.shape
    return bias.expand(batch, kv_heads, heads // kv_heads, -1, -1)


@cache
def fmha() -> Any:
    """The package's attention module."""
    return import_module(next(place for package, place in PLACES.items() if find_spec(package) is not None))


@constant
def lacks(device: str) -> str | None:
    """What is missing to run it: one of the packages, or one with kernels that this torch can load."""
    package = next((package for package in PLACES if find_spec(package) is not None), None)
    if package is None:
        return "needs the package xformers, which is not installed (pip install 'pairform[xformers]')"
    if device == "cuda" and torch.cuda.is_available():
        token = torch.zeros(1, 1, 1, 32, dtype=torch.float16, device=device)
        try:
            fmha().memory_efficient_attention(token, token, token)
        except NotImplementedError:  # built for another torch, or without CUDA
            return f"needs a build of {package} for CUDA and torch {torch.__version__}, which is not installed"
    return None
