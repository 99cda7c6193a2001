"""What flash-attn is told about a mask, held to the reference by a slow attention that does what it is told."""

from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from pairform.blocks.attention.kernels.arguments import AttentionCall
from pairform.blocks.attention.kernels.flash import flash
from pairform.blocks.attention.kernels.variable_length import runs_of
from pairform.blocks.attention.masks import JoinedMask, Mask, MaskPattern
from tests.kernels.cases import answer, expected, heads_for, masks, real_queries


def slow_varlen(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    *,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    softmax_scale: float,
    causal: bool,
    window_size: tuple[int, int],
    softcap: float,
) -> Tensor:
    """flash-attn's contract: runs `[tokens, heads, head_dim]`, the last query level with the last key; -1 is no window."""
    mixed = torch.empty_like(queries)
    groups = queries.shape[1] // keys.shape[1]
    for run in range(len(cu_seqlens_q) - 1):
        asks, seen = (slice(int(starts[run]), int(starts[run + 1])) for starts in (cu_seqlens_q, cu_seqlens_k))
        count, known = asks.stop - asks.start, seen.stop - seen.start
        assert 0 < count <= max_seqlen_q
        assert 0 < known <= max_seqlen_k
        own, read = (heads[seen].repeat_interleave(groups, 1) for heads in (keys, values))
        scores = torch.einsum("qhd,khd->hqk", queries[asks], own) * softmax_scale
        scores = torch.tanh(scores / softcap) * softcap if softcap else scores
        distance = torch.arange(count)[:, None] + known - count - torch.arange(known)
        left, right = window_size[0], 0 if causal else window_size[1]
        hidden = ((distance > left) & (left >= 0)) | ((distance < -right) & (right >= 0))
        mixed[asks] = torch.einsum("hqk,khd->qhd", scores.masked_fill(hidden, -torch.inf).softmax(-1), read)
    return mixed


@pytest.fixture
def flash_attn(monkeypatch: pytest.MonkeyPatch) -> None:
    package: Any = ModuleType("flash_attn")
    package.flash_attn_varlen_func = slow_varlen
    monkeypatch.setitem(__import__("sys").modules, "flash_attn", package)


@pytest.mark.usefixtures("flash_attn")
@settings(max_examples=150)
@given(masks(40, runs_only=True))
def test_runs_say_what_the_mask_says(mask: JoinedMask) -> None:
    work, heads, real = AttentionCall(mask, 0.3, softcap=2.0), heads_for(mask, 4, 2), real_queries(mask)
    torch.testing.assert_close(answer(flash, heads, work) * real, expected(heads, work) * real, rtol=1e-5, atol=1e-5)


def test_a_window_over_tokens_with_padding_among_them_has_no_runs() -> None:
    valid = torch.tensor([[True, False, True, True]])
    local, whole = (JoinedMask((Mask(MaskPattern(window=window), 0, 4, 0, 4, valid),)) for window in ((1, 1), None))
    assert runs_of(local, 1, torch.device("cpu")) is None
    runs = runs_of(whole, 1, torch.device("cpu"))
    assert runs is not None
    assert (runs.query_lengths, runs.key_lengths) == ((4,), (3,))
