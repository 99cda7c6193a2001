"""Padding changes nothing: a text in a batch, padded left or right, gives what it gives alone."""

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

import pairform
from tests.merged.pairs import Padded, padded, pair, texts, wide

PAIRS: dict[str, dict[str, Any]] = {
    "merged": pair(),
    "separate keys": pair(widths=(48, 32), bridge="separate_keys"),
    "linear": pair(widths=(24, 40), bridge="linear"),
    "cross-attention": pair("cross"),
}
SIDES = list(product(("left", "right"), repeat=2))
SOURCES, TARGETS = texts(0, (19, 8, 14, 1)), texts(1, (16, 16, 9, 11))
FLOAT32 = 1e-5
"""Largest difference over the largest value."""


def read(model: pairform.Model, source: Padded, target: Padded, chunks: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Encoder states, decoder states and logits; with `chunks`, the decoder reads its tokens in that many calls, cached."""
    with torch.no_grad():
        if not chunks:
            whole = model(source.ids, source.mask, target.ids, target.mask)
            return whole.encoder_last_hidden_state, whole.last_hidden_state, whole.logits
        cache = pairform.Cache()
        parts, seen = [], 0
        for part in torch.tensor_split(target.ids, chunks, dim=1):
            seen += part.shape[1]
            parts.append(model(source.ids, source.mask, part, target.mask[:, :seen], cache=cache))
    states = [torch.cat([getattr(part, name) for part in parts], dim=1) for name in ("last_hidden_state", "logits")]
    return parts[0].encoder_last_hidden_state, states[0], states[1]


def largest(model: pairform.Model, sides: tuple[str, str], chunks: tuple[int, ...]) -> float:
    """The largest difference between texts alone and in a batch, over the largest value."""
    source, target = padded(SOURCES, sides[0]), padded(TARGETS, sides[1])
    batched = read(model, source, target, chunks)
    masks = (source.mask.bool(), target.mask.bool(), target.mask.bool())
    found = 0.0
    for row, (own_source, own_target) in enumerate(zip(SOURCES, TARGETS, strict=True)):
        alone = read(model, padded([own_source], "left"), padded([own_target], "left"), ())
        for together, mask, single in zip(batched, masks, alone, strict=True):
            assert single.isfinite().all()
            found = max(found, float((together[row][mask[row]] - single[0]).abs().max() / single.abs().max()))
    return found


@pytest.mark.parametrize("chunks", [(), (2, 7, 8)], ids=["whole", "cached"])
@pytest.mark.parametrize("sides", SIDES, ids="-".join)
@pytest.mark.parametrize("what", PAIRS)
def test_a_padded_text_gives_what_it_gives_alone(what: str, sides: tuple[str, str], chunks: tuple[int, ...]) -> None:
    for kernel in ("eager", "sdpa"):
        model = wide(PAIRS[what], torch.float64)
        model.use_kernel(kernel)
        assert largest(model, sides, chunks) <= 1e-12


@pytest.mark.parametrize("sides", SIDES, ids="-".join)
@pytest.mark.parametrize("what", PAIRS)
def test_so_in_float32(what: str, sides: tuple[str, str]) -> None:
    assert largest(wide(PAIRS[what], torch.float32), sides, ()) <= FLOAT32


@pytest.mark.parametrize("sides", SIDES, ids="-".join)
@pytest.mark.parametrize("what", PAIRS)
def test_a_padded_prompt_goes_on_as_it_does_alone(what: str, sides: tuple[str, str]) -> None:
    model = wide(PAIRS[what])
    source, prompt = padded(SOURCES, sides[0]), padded([target[:6] for target in TARGETS[:2]] + TARGETS[2:], sides[1])
    options: dict[str, Any] = {"max_new_tokens": 12, "eos_token_id": ()}
    together = model.generate(
        source.ids, source.mask, decoder_input_ids=prompt.ids, decoder_attention_mask=prompt.mask, **options
    )
    for row in range(len(SOURCES)):
        start = prompt.ids[row][prompt.mask[row].bool()]
        alone = model.generate(SOURCES[row][None], decoder_input_ids=start[None], **options)
        assert torch.equal(together[row, -12:], alone[0, -12:])


def test_a_decoder_that_sees_both_ways_tells_its_own_padding_from_the_sources() -> None:
    document = pair("cross")
    document["decoder"] |= {"cycle": []}
    document["decoder"]["layer"]["branches"]["self_attention"]["mask"]["causal"] = False
    model = wide(document)
    source, target = texts(0, (9, 5)), texts(1, (4, 9))
    together = model(padded(source, "left").ids, None, padded(target, "left").ids, padded(target, "left").mask).logits
    for row in range(2):
        alone = model(source[row][None], decoder_input_ids=target[row][None]).logits
        torch.testing.assert_close(together[row, -len(target[row]) :], alone[0], rtol=1e-9, atol=1e-9)


def test_without_a_mask_the_pad_token_is_padding_to_the_source_alone() -> None:
    model = wide(pair())
    source, target = padded(SOURCES, "left"), padded(TARGETS, "right")
    masked = model(source.ids, source.mask, target.ids).logits
    assert torch.equal(model(source.ids, decoder_input_ids=target.ids).logits, masked)
    everything = model(source.ids, torch.ones_like(source.ids), target.ids).logits
    assert not torch.allclose(everything, masked)


def test_absolute_positions_matter_to_merged_attention_alone() -> None:
    """Why positions must count from the first real token: the source's keys are not rotated."""
    places = torch.arange(16)[None]
    for attention, matters in (("merged", True), ("cross", False)):
        model = wide(pair(attention))
        inputs = {"input_ids": SOURCES[0][None], "decoder_input_ids": TARGETS[0][None]}
        here, there = (model(**inputs, decoder_position_ids=places + shift).logits for shift in (0, 50))
        assert torch.allclose(here, there, rtol=1e-3, atol=1e-3) != matters
