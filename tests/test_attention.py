"""Attention blocks against torch's own module, kernels against each other, masks against their words."""

from typing import Any

import pytest
import torch
from torch import nn

from pairform.blocks.attention.cross_attention import CrossAttention
from pairform.blocks.attention.merged_attention import MergedAttention
from pairform.blocks.attention.self_attention import SelfAttention
from pairform.blocks.context import Context, Source
from pairform.registry import Sizes
from tests.test_blocks import filled


def test_self_attention_is_torchs_multi_head_attention() -> None:
    spec = SelfAttention.Spec.read({"heads": 4, "bias": True, "mask": {"causal": True}})
    ours = filled(SelfAttention(spec, Sizes(16))).double()
    theirs = nn.MultiheadAttention(16, 4, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.q_proj.weight, ours.k_proj.weight, ours.v_proj.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.q_proj.bias, ours.k_proj.bias, ours.v_proj.bias]))
    theirs.out_proj.load_state_dict(ours.o_proj.state_dict())
    hidden = torch.randn(2, 7, 16, dtype=torch.float64)
    future = torch.ones(7, 7, dtype=torch.bool).triu(1)
    torch.testing.assert_close(
        ours(hidden, Context(torch.arange(7)[None])), theirs(hidden, hidden, hidden, attn_mask=future)[0]
    )


def test_cross_attention_reads_a_source_of_another_width() -> None:
    ours = filled(CrossAttention(CrossAttention.Spec(heads=4, kv_heads=1), Sizes(16, source_width=10)))
    hidden, source = torch.randn(2, 3, 16), torch.randn(2, 5, 10)
    valid = torch.tensor([[True] * 5, [True, True, False, False, False]])
    context = Context(torch.arange(3)[None], source=Source(source, valid))
    cut = Context(torch.arange(3)[None], source=Source(source[1:, :2]))
    torch.testing.assert_close(ours(hidden, context)[1:], ours(hidden[1:], cut))


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("mask", [{}, {"causal": True}, {"window": [2, 1]}, {"causal": True, "window": [2, 0]}])
@pytest.mark.parametrize("block", [SelfAttention, MergedAttention])
def test_kernels_agree_in_outputs_and_gradients(block: Any, kv_heads: int, mask: dict[str, Any]) -> None:
    valid = torch.tensor([[True] * 6, [False, False, True, True, True, True]])
    source_valid = torch.tensor([[True, True, False], [True, False, False]])
    answers = []
    for kernel in ("sdpa", "eager", "chunked"):
        torch.manual_seed(0)
        spec = block.Spec.read({"heads": 4, "kv_heads": kv_heads, "mask": mask, "kernel": kernel})
        attention = filled(block(spec, Sizes(16, source_width=16))).double()
        hidden = torch.randn(2, 6, 16, dtype=torch.float64, requires_grad=True)
        source = torch.randn(2, 3, 16, dtype=torch.float64, requires_grad=True)
        mixed = attention(hidden, Context(torch.arange(6)[None], valid=valid, source=Source(source, source_valid)))
        mixed[valid].square().sum().backward()
        assert (source.grad is not None) is (block is MergedAttention)
        seen = (source.grad,) if source.grad is not None else ()
        answers.append((mixed[valid].detach(), hidden.grad, attention.k_proj.weight.grad, *seen))
    for answer in answers[1:]:
        torch.testing.assert_close(answer, answers[0], rtol=1e-9, atol=1e-9)
