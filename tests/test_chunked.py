"""Attention in chunks gives what it gives as a whole: outputs and gradients, under any mask."""

from itertools import accumulate

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pairform.blocks.attention.kernels.arguments import AttentionCall
from pairform.blocks.attention.kernels.chunked import chunked
from pairform.blocks.attention.kernels.dispatch import LONG, LONG_CAPPED, chunks_pay
from pairform.blocks.attention.kernels.eager import eager
from pairform.blocks.attention.kernels.tiles import tiling
from pairform.blocks.attention.kernels.tiles.arithmetic import Tiles
from pairform.blocks.attention.kernels.tiles.tiling import Tile
from pairform.blocks.attention.masks import JoinedMask, Mask, MaskPattern

ROWS, HEAD_DIM = 2, 8
places = st.integers(0, 9)
specs = st.builds(MaskPattern, causal=st.booleans(), window=st.none() | st.tuples(places, places))


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiling, "MOST", 8)
    monkeypatch.setattr(tiling, "FEWEST", 4)
    monkeypatch.setattr(tiling, "ON_CPU", 128)


def padding(length: int, count: int) -> Tensor | None:
    """`count` tokens of padding before the second row; None for none."""
    valid = torch.ones(ROWS, length, dtype=torch.bool)
    valid[1, : min(count, length - 1)] = False
    return valid if count else None


@st.composite
def masks(draw: st.DrawFn) -> JoinedMask:
    """Own tokens with some of them in a cache, pictures among them; with or without a source; padding anywhere."""
    length, earlier = draw(st.integers(1, 40)), draw(st.integers(0, 6))
    spec, whole = draw(specs), length + earlier
    blocks = None
    if spec.causal and draw(st.booleans()):
        starts = list(accumulate(draw(st.lists(st.integers(1, 12), max_size=4)), initial=draw(places)))
        blocks = torch.full((ROWS, whole), -1)
        for number, (begin, end) in enumerate(zip(starts[::2], starts[1::2], strict=False)):
            blocks[:, begin:end] = number
    own = Mask(spec, earlier, length, 0, whole, padding(whole, draw(places)), "own", blocks)
    if not draw(st.booleans()):
        return JoinedMask((own,))
    source = draw(st.integers(1, 30))
    return JoinedMask((own, Mask(MaskPattern(), 0, length, 0, source, padding(source, draw(places)), "source")))


@given(masks(), st.sampled_from([(1, 1), (2, 1), (2, 3)]), st.sampled_from([None, 2.0]))
def test_outputs_and_gradients_are_those_of_eager(mask: JoinedMask, heads: tuple[int, int], softcap: float | None) -> None:
    torch.manual_seed(0)
    kv_heads, groups = heads
    queries = torch.randn(ROWS, kv_heads * groups, mask.lengths[0], HEAD_DIM, requires_grad=True)
    keys, values = (
        tuple(torch.randn(ROWS, kv_heads, part.key_length, HEAD_DIM, requires_grad=True) for part in mask.parts) for _ in "kv"
    )
    allowed = mask.dense(queries.device)
    real = torch.ones(1) if allowed is None else allowed.any(-1, keepdim=True)  # where a query sees a key
    answers = []
    for kernel in (eager, chunked):
        mixed, _ = kernel(queries, keys, values, AttentionCall(mask, 0.3, softcap))
        gradients = torch.autograd.grad((mixed * real).square().sum(), (queries, *keys, *values))
        answers.append((mixed * real, *gradients))
    for expected, found in zip(*answers, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_no_more_scores_are_held_than_a_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    real = Tiles.weights

    def watched(self: Tiles, tile: Tile, queries: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        found = real(self, tile, queries)
        sizes.append(found[0].shape)
        return found

    monkeypatch.setattr(Tiles, "weights", watched)
    mask = JoinedMask((Mask(MaskPattern(window=(3, 2)), 0, 64, 0, 64),))
    heads = tuple(torch.randn(ROWS, 2, 64, HEAD_DIM) for _ in range(3))
    chunked(heads[0], heads[1:2], heads[2:], AttentionCall(mask, 1.0))
    assert sum(heads * queries for heads, queries, _ in sizes) == 64 * ROWS * 2
    assert all(heads * queries * keys <= 128 * torch.get_num_threads() for heads, queries, keys in sizes)
    assert all(queries == 4 and keys <= 4 + 3 + 2 for _, queries, keys in sizes)  # of 8, a window hides too much


def test_dropout_is_drawn_again_for_gradients() -> None:
    """A seed's dropout is one linear map of the values, so its gradient is that map's transpose."""
    torch.manual_seed(0)
    mask = JoinedMask((Mask(MaskPattern(causal=True), 0, 20, 0, 20),))
    queries, keys = (torch.randn(1, 2, 20, HEAD_DIM, dtype=torch.float64) for _ in "qk")
    values = torch.randn(1, 2, 20, HEAD_DIM, dtype=torch.float64, requires_grad=True)
    mixed, _ = chunked(queries, (keys,), (values,), AttentionCall(mask, 0.3, 2.0, dropout=0.5))
    whole, _ = chunked(queries, (keys,), (values,), AttentionCall(mask, 0.3, 2.0))
    (gradient,) = torch.autograd.grad(mixed.square().sum() / 2, values)
    torch.testing.assert_close((gradient * values).sum(), mixed.square().sum())
    assert not torch.allclose(mixed, whole)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("softcap", [None, 50.0, 200.0])
@pytest.mark.parametrize(("size", "of_values"), [(1.0, 1.0), (1.0, 1e-20), (1.0, 1e37), (6.0, 1.0)])
def test_with_scores_and_values_of_any_size(dtype: torch.dtype, softcap: float | None, size: float, of_values: float) -> None:
    """Exponentials of small scores are not shifted by the largest one; of others they would exceed float32."""
    generator = torch.Generator().manual_seed(0)
    mask = JoinedMask((Mask(MaskPattern(causal=True), 0, 40, 0, 40, padding(40, 12)),))
    queries, keys, values = (torch.randn(ROWS, 2, 40, HEAD_DIM, generator=generator).mul(size).to(dtype) for _ in "qkv")
    values *= of_values
    given = [tensor.requires_grad_() for tensor in (queries, keys, values)]
    exact = [tensor.detach().double().requires_grad_() for tensor in given]
    answers = []
    for kernel, (q, k, v) in ((chunked, given), (eager, exact)):
        mixed, _ = kernel(q, (k,), (v,), AttentionCall(mask, 0.3, softcap))
        masked = torch.ones(ROWS, 1, 40, 1)
        masked[1, :, :12] = 0
        mixed = mixed / of_values * masked
        answers.append((mixed, *torch.autograd.grad(mixed.square().sum(), (q, k))))
    tolerance = 1e-4 if dtype == torch.float32 else 3e-2
    for found, expected in zip(*answers, strict=True):
        assert found.isfinite().all()
        assert (found.double() - expected).norm() <= tolerance * expected.norm()


def test_a_row_does_not_depend_on_the_values_of_others() -> None:
    mask = JoinedMask((Mask(MaskPattern(), 0, 40, 0, 40),))
    heads = [torch.randn(ROWS, 2, 40, HEAD_DIM) for _ in range(3)]
    alone, _ = chunked(heads[0], (heads[1],), (heads[2],), AttentionCall(mask, 0.3))
    for tensor in heads:
        tensor[1] *= 1e10
    together, _ = chunked(heads[0], (heads[1],), (heads[2],), AttentionCall(mask, 0.3))
    assert torch.equal(alone[0], together[0])


def test_auto_takes_chunks_where_they_pay() -> None:
    def pay(length: int, softcap: float | None, window: tuple[int, int] | None, device: str = "cpu") -> bool:
        mask = JoinedMask((Mask(MaskPattern(window=window), 0, length, 0, length),))
        return chunks_pay(AttentionCall(mask, 1.0, softcap), device)

    capped, long = int(LONG_CAPPED**0.5), int(LONG**0.5)
    assert pay(capped, 50.0, None)
    assert not pay(capped, None, None)
    assert not pay(64, 50.0, None)
    assert pay(long, None, None)
    assert pay(long, None, (16, 16), "cuda")
    assert not pay(long, None, None, "cuda"), "sdpa holds no scores either"
