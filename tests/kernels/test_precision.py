"""Attention in chunks in float32 is as exact as the reference, float64 being the judge: answers and gradients."""

import pytest
import torch
from torch import Tensor

from pairform.blocks.attention.kernels.arguments import AttentionCall, Run
from pairform.blocks.attention.kernels.chunked import chunked
from pairform.blocks.attention.kernels.eager import eager
from pairform.blocks.attention.kernels.tiles.buffers import Buffers
from pairform.blocks.attention.kernels.tiles.softcap import REACHES, cap_scores
from pairform.blocks.attention.masks import JoinedMask, Mask, MaskPattern

LENGTH, HEAD_DIM = 300, 64
MOST = 1.2
"""Times the reference's own error."""


def heads(size: float) -> list[Tensor]:
    """Queries, keys and values; scores have a standard deviation of `size` squared."""
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(1, count, LENGTH, HEAD_DIM, generator=generator) for count in (4, 2, 2)]
    return [drawn[0] * size, drawn[1] * size, drawn[2]]


def computed(run: Run, given: list[Tensor], softcap: float | None) -> tuple[Tensor, ...]:
    leaves = [tensor.clone().requires_grad_() for tensor in given]
    work = AttentionCall(JoinedMask((Mask(MaskPattern(causal=True), 0, LENGTH, 0, LENGTH),)), HEAD_DIM**-0.5, softcap)
    mixed, _ = run(leaves[0], (leaves[1],), (leaves[2],), work)
    slopes = torch.randn(mixed.shape, generator=torch.Generator().manual_seed(1)).to(mixed.dtype)
    return mixed.detach(), *torch.autograd.grad(mixed, leaves, slopes)


@pytest.mark.parametrize("size", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("softcap", [50.0, 2.0, None])
def test_its_error_is_that_of_the_reference(softcap: float | None, size: float) -> None:
    given = heads(size)
    exact = computed(eager, [tensor.double() for tensor in given], softcap)
    reference, found = (computed(run, given, softcap) for run in (eager, chunked))
    for true, one, other in zip(exact, reference, found, strict=True):
        assert (other - true).norm() <= MOST * (one - true).norm()


@pytest.mark.parametrize("largest", [0.01, *REACHES, 30.0])
def test_every_depth_of_the_fraction_reaches_as_far_as_its_table_says(largest: float) -> None:
    scores = torch.linspace(-largest, largest, 2001)
    exact = scores.double().tanh()
    capped = scores.clone()
    cap_scores(capped, 1.0, 1.0, Buffers(torch.device("cpu")))
    assert ((capped - exact).abs() <= 2e-7 * exact.abs()).all()


def test_error_of_the_softcap_of_half_precision_is_two_roundings_of_the_cap() -> None:
    scores = torch.linspace(-200, 200, 4001)
    exact = 50 * (scores.double() / 50).tanh()
    cap_scores(scores, 1 / 50, 50.0, Buffers(torch.device("cpu")), half=True)
    # of the sigmoid, which is multiplied by twice the cap, and of the result
    assert (scores - exact).abs().max() <= 2 * 50 * torch.finfo(torch.float32).eps


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_score_that_is_no_number_stays_seen(value: float, half: bool) -> None:
    scores = torch.tensor([[[1.0, value]]])
    cap_scores(scores, 0.5, 2.0, Buffers(torch.device("cpu")), half=half)
    torch.testing.assert_close(scores, 2 * torch.tensor([[[0.5, value / 2]]]).tanh(), equal_nan=True)
