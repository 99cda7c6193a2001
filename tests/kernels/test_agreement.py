"""The kernels that run everywhere against the reference, under any mask: answers and gradients."""

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from pairform.blocks.attention.kernels.arguments import AttentionCall, Run
from pairform.blocks.attention.kernels.chunked import chunked
from pairform.blocks.attention.kernels.eager import eager
from pairform.blocks.attention.kernels.sdpa import sdpa
from pairform.blocks.attention.masks import JoinedMask, Mask, MaskPattern
from tests.kernels.cases import answer, expected, heads_for, masks, sees_a_key

KERNELS = {"sdpa": (sdpa, None), "chunked": (chunked, 2.0)}
HEADS = [(4, 4), (4, 2), (3, 1)]


def gradients(run: Run, heads: tuple[int, int], work: AttentionCall) -> tuple[Tensor, ...]:
    """An answer and its gradients. Only the reference trains what queries and keys do where a query sees no key, by way of
    scores that no answer depends on: for these two such queries do not count.
    """
    queries, keys, values = heads_for(work.mask, *heads)
    leaves = [tensor.requires_grad_() for tensor in (queries, *keys, *values)]
    mixed = answer(run, (queries, keys, values), work)
    seen, whole = (mixed * sees_a_key(work.mask)).square().sum(), mixed.square().sum()
    of_scores = torch.autograd.grad(seen, leaves[: 1 + len(keys)], retain_graph=True)
    return mixed.detach(), *of_scores, *torch.autograd.grad(whole, values)


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("name", KERNELS)
@settings(max_examples=40)
@given(mask=masks(80))
def test_answers_and_gradients(name: str, heads: tuple[int, int], mask: JoinedMask) -> None:
    run, softcap = KERNELS[name]
    work = AttentionCall(mask, 0.3, softcap)
    reference = gradients(eager, heads, work)
    size = max(1.0, *(float(wanted.abs().amax()) for wanted in reference))  # of the terms, which cancel where one key is seen
    for found, wanted in zip(gradients(run, heads, work), reference, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=5e-6 * size)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", KERNELS)
@settings(max_examples=40)
@given(mask=masks(80))
def test_half_precision(name: str, dtype: torch.dtype, mask: JoinedMask) -> None:
    run, softcap = KERNELS[name]
    work, heads = AttentionCall(mask, 0.3, softcap), heads_for(mask, 4, 2, dtype)
    wanted = expected(heads, work)
    assert (answer(run, heads, work).float() - wanted).norm() <= 2e-2 * wanted.norm()


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("run", [eager, sdpa, chunked])
def test_a_query_that_sees_nothing_is_given_the_mean_of_all_values(run: Run, dtype: torch.dtype) -> None:
    """Also where scores are low or values large enough that float16 would overflow."""
    valid = torch.tensor([[False, False, True, True, True, True], [True, True, True, False, False, False]])
    mask = JoinedMask((Mask(MaskPattern(causal=True, window=(1, 0)), 0, 6, 0, 6, valid),))
    queries, (keys,), (values,) = heads_for(mask, 4, 2, dtype)
    heads = (torch.full_like(queries, -3), (keys.abs() + 3,), (values.abs() + 2e4,))
    mixed, lost = answer(run, heads, AttentionCall(mask, 1.0)), ~sees_a_key(mask)[:, 0, :, 0]
    assert lost.tolist() == [[True, True, False, False, False, False], [False] * 4 + [True, True]]
    even = heads[2][0].double().mean(2, keepdim=True).repeat_interleave(2, 1)
    for row in range(2):
        torch.testing.assert_close(mixed[row, :, lost[row]].double(), even[row].expand(4, 2, -1), rtol=1e-2, atol=0)
