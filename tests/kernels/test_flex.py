"""flex_attention against the reference. Each kind of layer takes seconds to compile on a CPU, so there are two."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings

import pairform
from pairform.blocks.attention.flex import flex, lacks
from pairform.blocks.attention.flex_blocks import blocks_of
from pairform.blocks.attention.mask_spec import MaskSpec
from pairform.blocks.attention.masks import JoinedMask, Mask
from pairform.blocks.attention.work import Work
from tests.kernels.cases import answer, expected, heads_for, masks
from tests.test_blocks import TINY

pytestmark = pytest.mark.skipif(lacks("cpu") is not None, reason=f"flex {lacks('cpu')}")


@torch.no_grad()
@settings(max_examples=60)
@given(masks())
def test_softcap_and_grouped_heads_under_any_mask(mask: JoinedMask) -> None:
    work, heads = Work(mask, 0.3, softcap=2.0), heads_for(mask, 4, 2)
    torch.testing.assert_close(answer(flex, heads, work), expected(heads, work), rtol=1e-5, atol=1e-5)


@torch.no_grad()
@settings(max_examples=20)
@given(masks())
def test_bfloat16_and_one_head_of_keys_under_any_mask(mask: JoinedMask) -> None:
    work, heads = Work(mask, 0.25), heads_for(mask, 3, 1, torch.bfloat16)
    wanted = expected(heads, work)
    error = (answer(flex, heads, work).float() - wanted).norm() / wanted.norm()
    assert error <= 2e-2


@torch.no_grad()
def test_a_new_length_or_mask_compiles_nothing() -> None:
    def run(length: int, spec: MaskSpec) -> None:
        mask = JoinedMask((Mask(spec, 0, length, 0, length),))
        answer(flex, heads_for(mask, 4, 2), Work(mask, 0.3, softcap=2.0))

    run(40, MaskSpec())
    with torch.compiler.set_stance("fail_on_recompile"):
        for length in (41, 128, 300, 512):
            run(length, MaskSpec(causal=True, window=(length // 3, 0)))


def test_a_block_that_no_query_sees_is_not_looked_into() -> None:
    mask = JoinedMask((Mask(MaskSpec(causal=True, window=(100, 0)), 0, 512, 0, 512),))
    part, _, whole, *_ = blocks_of(mask, 1, torch.device("cpu")).lists
    assert part[0, 0].tolist() == [1, 2, 2, 2]
    assert whole[0, 0].tolist() == [0, 0, 0, 0]
    part, _, whole, *_ = blocks_of(JoinedMask((Mask(MaskSpec(), 0, 256, 0, 384),)), 1, torch.device("cpu")).lists
    assert part[0, 0].tolist() == [0, 0]
    assert whole[0, 0].tolist() == [3, 3]


@torch.no_grad()
def test_a_compiled_stack_takes_it_in_whole() -> None:
    ids = torch.randint(3, 48, (2, 30), generator=torch.Generator().manual_seed(0))
    hidden = []
    for kernel in ("flex", "eager"):
        encoder: Any = pairform.build(TINY, seed=0, kernel=kernel).encoder
        compiled: Any = torch.compile(encoder, backend="eager", fullgraph=True)
        hidden.append(compiled(ids, valid=ids > 5).hidden)
    torch.testing.assert_close(hidden[0], hidden[1], rtol=1e-5, atol=1e-5)
