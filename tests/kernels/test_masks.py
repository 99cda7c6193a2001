"""A mask against its words, one query and one key at a time, and its parts against the whole."""

from collections.abc import Iterator
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pairform.blocks.attention.kernels.biases import fully_masked
from pairform.blocks.attention.kernels.tiles.visible import part_partly_hidden, part_within, partly_hidden, within
from pairform.blocks.attention.masks import JoinedMask, Mask, MaskPattern
from tests.kernels.cases import ROWS, masks

CPU = torch.device("cpu")


def dense(mask: JoinedMask) -> Tensor:
    """`[rows, queries, keys]`."""
    found = mask.dense(CPU)
    return torch.ones(ROWS, *mask.lengths, dtype=torch.bool) if found is None else found[:, 0].expand(ROWS, -1, -1)


def may_see(mask: Mask, row: int, query: int, key: int) -> bool:
    """The mask's words."""
    asks, seen = mask.query_start + query, mask.key_start + key
    if mask.valid is not None and not mask.valid[row, key]:
        return False
    packed = mask.query_segments is not None and mask.key_segments is not None
    if packed and mask.query_segments[row, query] != mask.key_segments[row, key]:  # type: ignore[index]
        return False
    left, right = mask.pattern.window or (10**9, 10**9)
    if asks - seen > left:
        return False
    if mask.blocks is not None and mask.blocks[row, asks] == mask.blocks[row, seen] >= 0:
        return mask.pattern.prefix is False or mask.pattern.window is None or seen - asks <= mask.pattern.window[1]
    return seen - asks <= (0 if mask.pattern.causal else right)


@settings(max_examples=100)
@given(masks(24))
def test_a_mask_allows_what_its_words_say(mask: JoinedMask) -> None:
    found = dense(mask)
    begin = 0
    for part in mask.parts:
        for row in range(ROWS):
            expected = [
                [may_see(part, row, query, key) for key in range(part.key_length)] for query in range(part.query_length)
            ]
            assert found[row, :, begin : begin + part.key_length].tolist() == expected
        begin += part.key_length
    lost = fully_masked(mask, CPU)
    assert torch.equal(~found.any(-1), torch.zeros(ROWS, mask.lengths[0]).bool() if lost is None else lost[:, 0, :, 0])


@given(masks(60), st.data())
def test_some_queries_see_within_their_keys_what_they_see_of_all(mask: JoinedMask, data: st.DataObject) -> None:
    begin = data.draw(st.integers(0, mask.lengths[0] - 1))
    end = data.draw(st.integers(begin + 1, mask.lengths[0]))
    places, part = within(mask, begin, end)
    expected, start = [], 0
    for place, whole in zip(places, mask.parts, strict=True):
        seen = dense(mask)[:, begin:end, start : start + whole.key_length]
        expected.append(seen[..., place])
        assert not seen[..., : place.start].any()
        assert not seen[..., place.stop :].any()
        start += whole.key_length
    assert torch.equal(dense(part), torch.cat(expected, -1))
    assert torch.equal(dense(mask.rows(begin, end)), dense(mask)[:, begin:end])


@given(masks(60))
def test_outside_of_what_is_partly_hidden_every_query_sees_every_key(mask: JoinedMask) -> None:
    place, part = partly_hidden(mask)
    whole = dense(mask)
    assert whole[..., : place.start].all()
    assert whole[..., place.stop :].all()
    if part.parts:
        assert torch.equal(dense(part), whole[..., place])


def short_masks() -> Iterator[Mask]:
    """Queries that are some of the keys, or the last of them, under each kind of window; nothing is padded."""
    windows = None, (0, 0), (2, 0), (0, 3), (2, 1)
    choices = product([False, True], windows, [0, 2], [0, 1, 4], [1, 2, 4], [0, 2])
    for causal, window, key_start, earlier, queries, later in choices:
        spec, start = MaskPattern(causal=causal, window=window), key_start + earlier
        yield Mask(spec, start, queries, key_start, earlier + queries + later)


def seen(mask: Mask) -> Tensor:
    """`[queries, keys]`, by the mask's words."""
    return torch.tensor(
        [[may_see(mask, 0, query, key) for key in range(mask.key_length)] for query in range(mask.query_length)]
    )


def extent(marked: Tensor) -> slice:
    """From the first that is True to the last."""
    places = marked.nonzero().flatten().tolist()
    return slice(places[0], places[-1] + 1) if places else slice(0, 0)


def test_the_bounds_of_a_mask_are_as_close_as_they_can_be() -> None:
    """A kernel that reads more keys than it must, or a mask that hides nothing, costs time and changes no answer."""
    for mask in short_masks():
        expected = seen(mask)
        assert (mask.dense(CPU) is None) == bool(expected.all()), mask
        ranges = [extent(row) for row in expected]
        low, high = mask.interval(CPU)
        assert (low.tolist(), high.tolist()) == ([[row.start for row in ranges]], [[row.stop - 1 for row in ranges]]), mask
        for begin in range(mask.query_length):
            for end in range(begin + 1, mask.query_length + 1):
                place, part = part_within(mask, begin, end)
                assert place == extent(expected[begin:end].any(0)), mask
                assert torch.equal(seen(part), expected[begin:end, place]), mask
        hidden = ~expected.all(0)
        found, close = part_partly_hidden(mask), extent(hidden)
        if not hidden.any():
            assert found.start == found.stop, mask
        elif close.start == 0 or close.stop == mask.key_length:
            assert found == (close if hidden[close].all() else slice(0, mask.key_length)), mask
        else:
            assert found == slice(0, mask.key_length), mask


def test_masks_joined_are_their_parts_beside_each_other() -> None:
    """Also where both hide a part of their keys, and where one hides nothing."""
    some = [mask for mask in short_masks() if mask.query_length == 4]
    for first, second in zip(some, some[7:] + some[:7], strict=True):
        joined, expected = JoinedMask((first, second)), torch.cat([seen(first), seen(second)], -1)
        whole = joined.dense(CPU)
        assert bool(expected.all()) if whole is None else (~whole).equal(~expected[None, None]), joined
        place, part = partly_hidden(joined)
        assert expected[:, : place.start].all()
        assert expected[:, place.stop :].all()
        assert torch.equal(torch.cat([seen(mask) for mask in part.parts] or [expected[:, :0]], -1), expected[:, place]), joined


@pytest.mark.parametrize(
    ("spec", "most"),
    [
        (MaskPattern(causal=True, window=(3, 2)), 5 + 3),
        (MaskPattern(window=(3, 2)), 5 + 3 + 2),
        (MaskPattern(window=(30, 40)), 50),
        (MaskPattern(causal=True), 50),
        (MaskPattern(), 50),
    ],
)
def test_how_many_keys_five_queries_see_together(spec: MaskPattern, most: int) -> None:
    mask = Mask(spec, 0, 50, 0, 50)
    assert mask.seen_by(5) == most == max(int(seen(mask)[begin : begin + 5].any(0).sum()) for begin in range(46))
    assert JoinedMask((mask, Mask(MaskPattern(), 0, 50, 0, 7))).seen_by(5) == most + 7


def test_in_a_block_as_many_keys_are_seen_as_its_window_allows() -> None:
    """Without a prefix a window bounds blocks on the left alone."""
    blocks = torch.zeros(ROWS, 50, dtype=torch.long)
    for prefix, most in ((True, 5 + 3 + 2), (False, 50)):
        mask = Mask(MaskPattern(causal=True, window=(3, 2), prefix=prefix), 0, 50, 0, 50, blocks=blocks)
        assert mask.seen_by(5) == most
