"""In half precision each kernel is near what float64 says of the same inputs, and finite where that is, whatever the mask and
however large the scores. The bounds are those of docs/precision.md."""

import pytest
import torch
from torch import Tensor

from pairform.blocks.attention.kernels.arguments import AttentionCall, Parts, Run
from pairform.blocks.attention.kernels.dispatch import KERNELS
from pairform.blocks.attention.kernels.eager import eager
from pairform.blocks.attention.masks import JoinedMask, Mask, MaskPattern
from tests.roundings import roundings

BATCH, HEADS, KV_HEADS, HEAD_DIM = 2, 4, 2, 24
FORWARD, GRADIENT = 8, 16
"""Roundings of the dtype, relative to the exact answer and to all gradients together."""
LARGE = 300.0
"""Of a query and a key whose product is beyond float16 until it is scaled."""

here = pytest.mark.parametrize("kernel", [name for name, kernel in KERNELS.items() if kernel.devices is None])
half = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])


def drawn(queries: int, own: int, source: int, dtype: torch.dtype) -> list[Tensor]:
    """Queries, then keys and values of one's own tokens, and of a source where it has a length."""
    generator = torch.Generator().manual_seed(queries)
    sizes = [(HEADS, queries), *((KV_HEADS, length) for length in (own, own, source, source) if length)]
    return [torch.randn(BATCH, *size, HEAD_DIM, generator=generator).to(dtype) for size in sizes]


def computed(run: Run, given: list[Tensor], softcap: float | None, *, padded: bool) -> tuple[Tensor, list[Tensor]]:
    """The answer and the gradients of all inputs; where padded, the first queries of the second row see no key."""
    leaves = [tensor.detach().requires_grad_() for tensor in given]
    queries, own = leaves[0].shape[2], leaves[1].shape[2]
    valid = None
    if padded:
        valid = torch.ones(BATCH, own, dtype=torch.bool)
        valid[1, : own // 3] = False
    parts = [Mask(MaskPattern(causal=True), own - queries, queries, 0, own, valid)]
    if len(leaves) > 3:
        nothing = None if valid is None else torch.tensor([[True], [False]]).expand(BATCH, leaves[3].shape[2])
        parts.append(Mask(MaskPattern(), own - queries, queries, 0, leaves[3].shape[2], nothing, reads="source"))
    work = AttentionCall(JoinedMask(tuple(parts)), HEAD_DIM**-0.5, softcap)
    keys: Parts = tuple(leaves[1::2])
    values: Parts = tuple(leaves[2::2])
    mixed, _ = run(leaves[0], keys, values, work)
    slopes = torch.randn(mixed.shape, generator=torch.Generator().manual_seed(1)).to(given[0].dtype).to(mixed.dtype)
    if padded and queries > 1:
        slopes[1, :, : own // 3] = 0  # of padding, which no loss reads: only some kernels give its queries and keys a gradient
    return mixed.detach(), list(torch.autograd.grad(mixed, leaves, slopes))


def flat(parts: list[Tensor]) -> Tensor:
    return torch.cat([part.flatten() for part in parts])


@here
@half
@pytest.mark.parametrize("softcap", [None, 50.0, 2.0])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(("queries", "own", "source"), [(40, 40, 0), (1, 40, 0), (5, 40, 0), (40, 40, 19), (1, 40, 19)])
def test_it_is_near_float64(
    kernel: str, dtype: torch.dtype, softcap: float | None, padded: bool, queries: int, own: int, source: int
) -> None:
    if softcap is not None and not KERNELS[kernel].softcap:
        pytest.skip(f"{kernel} has no softcap")
    given = drawn(queries, own, source, dtype)
    found = computed(KERNELS[kernel].run, given, softcap, padded=padded)
    exact = computed(eager, [tensor.double() for tensor in given], softcap, padded=padded)
    assert found[0].dtype == dtype
    assert all(part.isfinite().all() for part in (found[0], *found[1]))
    assert roundings(found[0], exact[0], dtype) <= FORWARD
    assert roundings(flat(found[1]), flat(exact[1]), dtype) <= GRADIENT


@here
@half
@pytest.mark.parametrize("softcap", [None, 50.0])
def test_scores_beyond_float16_until_they_are_scaled_and_after(kernel: str, dtype: torch.dtype, softcap: float | None) -> None:
    """Each query finds one key that is larger than all others by far: the answer is its value."""
    if softcap is not None and not KERNELS[kernel].softcap:
        pytest.skip(f"{kernel} has no softcap")
    length = 32
    for size in (60.0, LARGE):
        queries = torch.full((BATCH, HEADS, length, HEAD_DIM), size, dtype=dtype)
        keys = torch.full((BATCH, KV_HEADS, length, HEAD_DIM), -size, dtype=dtype)
        keys[:, :, 0] = size
        values = torch.randn(BATCH, KV_HEADS, length, HEAD_DIM).to(dtype)
        mixed, gradients = computed(KERNELS[kernel].run, [queries, keys, values], softcap, padded=False)
        expected = values[:, :, :1].repeat_interleave(HEADS // KV_HEADS, 1).expand_as(mixed)
        torch.testing.assert_close(mixed, expected)
        assert all(gradient.isfinite().all() for gradient in gradients)
