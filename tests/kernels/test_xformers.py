"""xformers' bias objects, written out, against the dense mask; and the kernel around them."""

from collections.abc import Iterable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from pairform.blocks.attention.kernels import xformers as memory_efficient
from pairform.blocks.attention.kernels.arguments import AttentionCall
from pairform.blocks.attention.kernels.variable_length import Runs, runs_of
from pairform.blocks.attention.kernels.xformers import NO_CLASS, bias_class, fmha, xformers
from pairform.blocks.attention.masks import JoinedMask
from tests.kernels.cases import ROWS, answer, expected, heads_for, masks, real_queries

pytestmark = pytest.mark.skipif(memory_efficient.lacks("cuda") is not None, reason=f"xformers {memory_efficient.lacks('cuda')}")
CPU = torch.device("cpu")


def written(bias: Any, runs: Runs) -> Tensor:
    """A bias object over the tokens of all runs: True where a query sees a key."""
    queries, keys = sum(runs.query_lengths), sum(runs.key_lengths)
    if runs.queries is not None:
        return bias.materialize((queries, keys)) == 0
    shape = (runs.query_lengths[0], runs.key_lengths[0])
    row = torch.ones(shape, dtype=torch.bool) if bias is None else bias.materialize(shape) == 0
    return diagonal([row] * ROWS)


def diagonal(rows: Iterable[Tensor]) -> Tensor:
    """What tokens see in a batch written as one row."""
    return torch.block_diag(*rows).bool()  # type: ignore[no-untyped-call]


@settings(max_examples=150)
@given(masks(30, runs_only=True))
def test_bias_objects_say_what_the_dense_mask_says(mask: JoinedMask) -> None:
    runs = runs_of(mask, ROWS, CPU)
    assert runs is not None
    bias = bias_class(runs, CPU)
    both_sides = runs.window != (None, None) and runs.window[1] != 0
    assert (bias is NO_CLASS) is (both_sides and runs.queries is not None), "a window to both sides, with padding or packed"
    if bias is NO_CLASS:
        return
    length, count = mask.lengths
    dense = mask.dense(CPU)
    allowed = torch.ones(ROWS, length, count, dtype=torch.bool) if dense is None else dense.expand(ROWS, 1, length, -1)[:, 0]
    whole = diagonal(allowed)
    queries = torch.arange(ROWS * length) if runs.queries is None else runs.queries
    keys = torch.arange(ROWS * count) if runs.keys is None else runs.keys
    assert torch.equal(written(bias, runs), whole[queries][:, keys])
    left_out = torch.ones(ROWS * length, dtype=torch.bool).index_fill(0, queries, False)
    real = real_queries(mask).flatten()
    assert not whole[left_out & real].any()


def slow_attention(queries: Tensor, keys: Tensor, values: Tensor, attn_bias: Any, p: float, scale: float) -> Tensor:
    """memory_efficient_attention's contract, `[batch, tokens, kv_heads, groups, head_dim]`."""
    scores = torch.einsum("bqhgd,bkhgd->bhgqk", queries, keys) * scale
    if isinstance(attn_bias, Tensor):
        assert attn_bias.stride(-2) % 8 == 0
        assert attn_bias.shape == scores.shape
        scores = scores + attn_bias
    elif attn_bias is not None:
        scores = scores + attn_bias.materialize(scores.shape[-2:])
    return torch.einsum("bhgqk,bkhgd->bqhgd", scores.softmax(-1), values)


@settings(max_examples=100)
@given(masks(40))
def test_the_kernel_under_any_mask(mask: JoinedMask) -> None:
    work, heads, real = AttentionCall(mask, 0.3), heads_for(mask, 4, 2), real_queries(mask)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(fmha(), "memory_efficient_attention", slow_attention)
        found = answer(xformers, heads, work)
    torch.testing.assert_close(found * real, expected(heads, work) * real, rtol=1e-5, atol=1e-5)
