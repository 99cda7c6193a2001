"""Masks of all kinds, and a kernel's answers beside those of the reference."""

from itertools import accumulate

import torch
from hypothesis import strategies as st
from torch import Tensor

from pairform.blocks.attention.kernels.arguments import AttentionCall, Parts, Run
from pairform.blocks.attention.kernels.biases import fully_masked
from pairform.blocks.attention.kernels.eager import eager
from pairform.blocks.attention.masks import JoinedMask, Mask, MaskPattern
from pairform.registry import merge_patch
from tests.test_blocks import TINY

ROWS, HEAD_DIM = 2, 16
"""flex takes no narrower heads."""
SIZE = {"head_dim": HEAD_DIM}
READING, WRITING = {"self_attention": SIZE}, {"self_attention": SIZE, "cross_attention": SIZE}
WIDE = merge_patch(TINY, {"encoder": {"layer": {"branches": READING}}, "decoder": {"layer": {"branches": WRITING}}})
FULL = MaskPattern()
small = st.integers(0, 9)
windows = st.none() | st.tuples(small, small) | st.just((100, 40))


@st.composite
def specs(draw: st.DrawFn) -> MaskPattern:
    causal, window = draw(st.booleans()), draw(windows)
    return MaskPattern(
        causal=causal, window=window, prefix=causal and (window is None or window[1] > 0) and draw(st.booleans())
    )


@st.composite
def lengths(draw: st.DrawFn, most: int) -> int:
    """Two tokens or more: torch compiles for one on its own."""
    return draw(st.integers(2, 20) | st.integers(2, most))


@st.composite
def padding(draw: st.DrawFn, length: int) -> Tensor | None:
    """Which tokens are real: padding before or behind those of the second row, or all of the first one's."""
    kind = draw(st.sampled_from(["none", "none", "left", "right", "row"]))
    if kind == "none":
        return None
    valid = torch.ones(ROWS, length, dtype=torch.bool)
    count = draw(st.integers(1, length - 1))
    valid[(0,) if kind == "row" else (1, slice(count) if kind == "left" else slice(-count, None))] = False
    return valid


@st.composite
def segments(draw: st.DrawFn, length: int) -> Tensor:
    """Documents that follow each other, in each row others."""
    starts = torch.zeros(ROWS, length, dtype=torch.long)
    for row in range(ROWS):
        starts[row, draw(st.lists(st.integers(0, length - 1), max_size=4))] = 1
    return starts.cumsum(1)


@st.composite
def pictures(draw: st.DrawFn, length: int) -> Tensor:
    """Runs of tokens that see each other, numbered."""
    blocks = torch.full((ROWS, length), -1)
    places = list(accumulate(draw(st.lists(st.integers(1, 12), max_size=4)), initial=draw(small)))
    for number, (begin, end) in enumerate(zip(places[::2], places[1::2], strict=False)):
        blocks[:, begin:end] = number
    return blocks


@st.composite
def masks(draw: st.DrawFn, most: int = 300, *, runs_only: bool = False) -> JoinedMask:
    """Own tokens, some of them in a cache, or a source, or both; padding, packed documents, pictures. With `runs_only` without
    what runs of tokens cannot say."""
    length = draw(lengths(most))
    earlier = draw(st.integers(0, 6))
    whole, seen = length + earlier, draw(lengths(most))
    packed, spec = draw(st.booleans()), draw(specs())
    own_segments = draw(segments(whole)) if packed else None
    queries = None if own_segments is None else own_segments[:, earlier:]
    blocks = draw(pictures(whole)) if spec.causal and not runs_only and draw(st.booleans()) else None
    own = Mask(spec, earlier, length, 0, whole, draw(padding(whole)), "own", blocks, queries, own_segments)
    of_source = draw(segments(seen)) if packed else None
    source = Mask(FULL, 0, length, 0, seen, draw(padding(seen)), "source", None, queries, of_source)
    kinds = [(own,), (source,)] if runs_only else [(own,), (source,), (own, source)]
    return JoinedMask(draw(st.sampled_from(kinds)))


def heads_for(mask: JoinedMask, heads: int, kv_heads: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Parts, Parts]:
    """Queries, keys and values as projections give them, from a fixed seed."""
    generator = torch.Generator().manual_seed(0)

    def drawn(count: int, length: int) -> Tensor:
        return torch.randn(ROWS, length, count, HEAD_DIM, generator=generator).to(dtype).transpose(1, 2)

    keys, values = (tuple(drawn(kv_heads, part.key_length) for part in mask.parts) for _ in "kv")
    return drawn(heads, mask.lengths[0]), keys, values


def answer(run: Run, heads: tuple[Tensor, Parts, Parts], work: AttentionCall) -> Tensor:
    mixed, _ = run(*heads, work)
    return mixed


def expected(heads: tuple[Tensor, Parts, Parts], work: AttentionCall) -> Tensor:
    """The reference's answer, in float32."""
    queries, keys, values = heads
    wide = tuple(part.float() for part in keys), tuple(part.float() for part in values)
    return answer(eager, (queries.float(), *wide), work)


def real_queries(mask: JoinedMask) -> Tensor:
    """True at queries that are not padding, `[rows, 1, queries, 1]`."""
    own = mask.parts[0]
    if own.valid is None or own.window == (None, None):
        return torch.ones(ROWS, 1, own.query_length, 1, dtype=torch.bool)
    return own.valid[:, None, own.query_start - own.key_start :][:, :, : own.query_length, None]


def sees_a_key(mask: JoinedMask) -> Tensor:
    """True at queries that see some key, `[rows, 1, queries, 1]`."""
    lost = fully_masked(mask, torch.device("cpu"))
    return torch.ones(ROWS, 1, 1, 1, dtype=torch.bool) if lost is None else ~lost
