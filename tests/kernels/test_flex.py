"""What flex_attention is told: the table and the lists of blocks beside the mask written out, and the call without a compiler,
which computes by the formula. Its compiled kernel runs in test_on_gpu.py.
"""

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.flex_attention import create_mask

from pairform.blocks.attention.kernels import flex
from pairform.blocks.attention.kernels.arguments import AttentionCall
from pairform.blocks.attention.kernels.flex_block_mask import SIZE, blocks_of
from pairform.blocks.attention.masks import JoinedMask, Mask, MaskPattern
from tests.kernels.cases import ROWS, answer, expected, heads_for, masks

CPU = torch.device("cpu")


def written_out(mask: JoinedMask) -> Tensor:
    """`[rows, 1, queries, keys]`."""
    found = mask.dense(CPU)
    return (
        torch.ones(ROWS, 1, *mask.lengths, dtype=torch.bool) if found is None else found.expand(ROWS, -1, mask.lengths[0], -1)
    )


def listed(counts: Tensor, numbers: Tensor) -> Tensor:
    """True at the blocks of a list, `[rows, block rows, block columns]`."""
    first = torch.arange(numbers.shape[-1]) < counts[:, 0, :, None]
    return torch.zeros_like(first).scatter(-1, numbers[:, 0].long(), first)


@settings(max_examples=60)
@given(masks())
def test_the_table_says_what_the_mask_says(mask: JoinedMask) -> None:
    allowed = flex.allowed_by(blocks_of(mask, ROWS, CPU).table)
    assert torch.equal(create_mask(allowed, ROWS, 1, *mask.lengths, device="cpu"), written_out(mask))


@settings(max_examples=60)
@given(masks(600))
def test_lists_hold_every_block_that_is_seen_and_call_whole_only_what_is(mask: JoinedMask) -> None:
    lists = blocks_of(mask, ROWS, CPU).lists
    part, whole, part_by_column, whole_by_column = (listed(*lists[place : place + 2]) for place in (0, 2, 4, 6))
    assert torch.equal(part_by_column, part.mT)
    assert torch.equal(whole_by_column, whole.mT)
    assert not (part & whole).any()
    rows, columns = part.shape[1:]
    queries, keys = mask.lengths
    room = (0, columns * SIZE - keys, 0, rows * SIZE - queries)

    def blocks(padding: bool) -> Tensor:
        padded = functional.pad(written_out(mask)[:, 0], room, value=padding)
        return padded.view(ROWS, rows, SIZE, columns, SIZE)

    seen, all_seen = blocks(False).any(-1).any(2), blocks(True).all(-1).all(2)
    assert not (seen & ~(part | whole)).any()
    assert not (whole & ~all_seen).any()


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize(("counts", "softcap"), [((4, 2), 2.0), ((3, 1), None)])
@settings(max_examples=20)
@given(mask=masks(80))
def test_the_call_gives_what_the_reference_gives(counts: tuple[int, int], softcap: float | None, mask: JoinedMask) -> None:
    work, heads = AttentionCall(mask, 0.3, softcap), heads_for(mask, *counts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flex, "compiled", lambda scale, softcap, kind: flex.call_of(scale, softcap))
        found = answer(flex.flex, heads, work)
    torch.testing.assert_close(found, expected(heads, work), rtol=1e-5, atol=1e-5)


def test_a_block_that_no_query_sees_is_not_looked_into() -> None:
    mask = JoinedMask((Mask(MaskPattern(causal=True, window=(100, 0)), 0, 512, 0, 512),))
    part, _, whole, *_ = blocks_of(mask, 1, CPU).lists
    assert part[0, 0].tolist() == [1, 2, 2, 2]
    assert whole[0, 0].tolist() == [0, 0, 0, 0]
    part, _, whole, *_ = blocks_of(JoinedMask((Mask(MaskPattern(), 0, 256, 0, 384),)), 1, CPU).lists
    assert part[0, 0].tolist() == [0, 0]
    assert whole[0, 0].tolist() == [3, 3]
