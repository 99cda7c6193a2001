"""A mask against its words, one query and one key at a time, and its parts against the whole."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pairform.blocks.attention.masks import JoinedMask, Mask
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
    lost = mask.lost(CPU)
    assert torch.equal(~found.any(-1), torch.zeros(ROWS, mask.lengths[0]).bool() if lost is None else lost[:, 0, :, 0])


@given(masks(60), st.data())
def test_some_queries_see_within_their_keys_what_they_see_of_all(mask: JoinedMask, data: st.DataObject) -> None:
    begin = data.draw(st.integers(0, mask.lengths[0] - 1))
    end = data.draw(st.integers(begin + 1, mask.lengths[0]))
    places, part = mask.within(begin, end)
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
    place, part = mask.partly_hidden()
    whole = dense(mask)
    assert whole[..., : place.start].all()
    assert whole[..., place.stop :].all()
    if part.parts:
        assert torch.equal(dense(part), whole[..., place])
