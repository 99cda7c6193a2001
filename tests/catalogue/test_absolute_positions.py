"""Positions added to embeddings: the paper's formula, GPT-2's table, decoding, and lengths that were not learned."""

from typing import Any

import pytest
import torch
from torch import Tensor

import pairform
from tests.catalogue.decoders import IDS, MASK, check_writing, decoder_with

ABSOLUTE: list[dict[str, Any]] = [{"name": "sinusoidal"}, {"name": "learned", "length": 20}]


def added(model: pairform.Model, ids: Tensor, mask: Tensor | None = None) -> Tensor:
    """What the position adds to the embeddings, `[batch, length, width]`."""
    states = model(ids, mask, output_hidden_states=True).hidden_states
    assert states is not None
    assert model.decoder is not None
    return states[0] - model.decoder.embedding(ids)


def test_sinusoids_are_those_of_the_paper_counted_from_the_first_real_token() -> None:
    model = pairform.build(decoder_with({"name": "none"}, position=ABSOLUTE[0]), seed=0, dtype=torch.float64)
    places, pairs = torch.arange(9, dtype=torch.float64)[:, None], torch.arange(8, dtype=torch.float64)
    expected = torch.empty(9, 16, dtype=torch.float64)
    expected[:, 0::2] = torch.sin(places / 10000 ** (2 * pairs / 16))
    expected[:, 1::2] = torch.cos(places / 10000 ** (2 * pairs / 16))
    found = added(model, IDS, MASK)
    torch.testing.assert_close(found[0], expected, rtol=0, atol=1e-6)  # computed in float32
    torch.testing.assert_close(found[1, 4:], expected[:5], rtol=0, atol=1e-6)


def test_learned_rows_are_those_of_the_table() -> None:
    model = pairform.build(decoder_with({"name": "none"}, position=ABSOLUTE[1]), seed=0, dtype=torch.float64)
    table = model.get_parameter("decoder.position.weight")
    assert table.shape == (20, 16)
    found = added(model, IDS, MASK)
    torch.testing.assert_close(found[0], table[:9])
    torch.testing.assert_close(found[1, 4:], table[:5])


@pytest.mark.parametrize("position", ABSOLUTE)
def test_they_decode_with_a_cache_as_without(position: dict[str, Any]) -> None:
    model = pairform.build(decoder_with({"name": "rope"}, position=position), seed=0)
    check_writing(model)


@pytest.mark.usefixtures("graphs_as_traced")
def test_they_decode_in_a_compiled_step() -> None:
    model = pairform.build(decoder_with({"name": "none"}, position=ABSOLUTE[1], depth=1), seed=0)
    found = [model.generate(IDS, MASK, max_new_tokens=4, compile=compiled) for compiled in (True, False)]
    assert torch.equal(*found)


def test_a_place_that_was_not_learned_is_an_error_and_an_odd_width_too() -> None:
    model = pairform.build(decoder_with({"name": "none"}, position={"name": "learned", "length": 5}), seed=0)
    with pytest.raises(pairform.PairformError, match="the position 8, expected positions below 5"):
        model(IDS)
    assert pairform.inspect(model.spec, target_length=5).flops["total"]
    with pytest.raises(pairform.PairformError, match="the position 5, expected positions below 5"):
        pairform.inspect(model.spec, target_length=6)
    with pytest.raises(pairform.PairformError, match="an even width"):
        decoder_with({"name": "none"}, position=ABSOLUTE[0], width=15)
