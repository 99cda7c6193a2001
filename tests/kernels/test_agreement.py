"""The kernels that run everywhere against the reference, under any mask: answers and gradients."""

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from pairform.blocks.attention.chunked import chunked
from pairform.blocks.attention.eager import eager
from pairform.blocks.attention.masks import JoinedMask
from pairform.blocks.attention.sdpa import sdpa
from pairform.blocks.attention.work import Run, Work
from tests.kernels.cases import answer, expected, heads_for, masks, sees_a_key

KERNELS = {"sdpa": (sdpa, None), "chunked": (chunked, 2.0)}
HEADS = [(4, 4), (4, 2), (3, 1)]


def gradients(run: Run, heads: tuple[int, int], work: Work) -> tuple[Tensor, ...]:
    """An answer and its gradients, where a query sees a key: of the others only the reference trains what they look for."""
    queries, keys, values = heads_for(work.mask, *heads)
    leaves = [tensor.requires_grad_() for tensor in (queries, *keys, *values)]
    mixed = answer(run, (queries, keys, values), work) * sees_a_key(work.mask)
    return mixed.detach(), *torch.autograd.grad(mixed.square().sum(), leaves)


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("name", KERNELS)
@settings(max_examples=40)
@given(mask=masks(80))
def test_answers_and_gradients(name: str, heads: tuple[int, int], mask: JoinedMask) -> None:
    run, softcap = KERNELS[name]
    work = Work(mask, 0.3, softcap)
    for found, wanted in zip(gradients(run, heads, work), gradients(eager, heads, work), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", KERNELS)
@settings(max_examples=40)
@given(mask=masks(80))
def test_bfloat16(name: str, mask: JoinedMask) -> None:
    run, softcap = KERNELS[name]
    work, heads, real = Work(mask, 0.3, softcap), heads_for(mask, 4, 2, torch.bfloat16), sees_a_key(mask)
    wanted = expected(heads, work) * real
    assert (answer(run, heads, work).float() * real - wanted).norm() <= 2e-2 * wanted.norm()
