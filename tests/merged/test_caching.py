"""A cache changes nothing but the work: the source is read once and whole, a local layer keeps its window alone."""

from typing import Any

import pytest
import torch

import pairform
from tests.merged.pairs import LOCAL, PLACE, padded, pair, texts, wide

NEW = 64
NEVER: tuple[int, ...] = ()
"""No end tokens: every row goes on."""
PAIRS: dict[str, dict[str, Any]] = {
    "merged": pair(),
    "separate keys": pair(widths=(48, 32), bridge="separate_keys"),
    "linear": pair(widths=(24, 40), bridge="linear"),
    "cross-attention": pair("cross", widths=(48, 32)),
}


def asked(sides: tuple[str, str]) -> dict[str, Any]:
    """Sources longer than every window, and decoder prompts, of unequal lengths."""
    source, prompt = padded(texts(0, (24, 13, 20)), sides[0]), padded(texts(1, (7, 2, 5)), sides[1])
    return {
        "input_ids": source.ids,
        "attention_mask": source.mask,
        "decoder_input_ids": prompt.ids,
        "decoder_attention_mask": prompt.mask,
    }


@pytest.mark.parametrize("sides", [("left", "right"), ("right", "left")])
@pytest.mark.parametrize("what", PAIRS)
def test_tokens_are_the_same_without_it(what: str, sides: tuple[str, str]) -> None:
    model = wide(PAIRS[what])
    inputs = asked(sides)
    cached = model.generate(**inputs, max_new_tokens=NEW, eos_token_id=NEVER)
    assert cached.shape == (3, 7 + NEW)
    assert len(set(cached.flatten().tolist())) > 30
    assert torch.equal(cached, model.generate(**inputs, max_new_tokens=NEW, eos_token_id=NEVER, use_cache=False))


@pytest.mark.parametrize("what", PAIRS)
def test_a_local_layer_keeps_its_window_and_the_source_is_read_once(what: str) -> None:
    model, cache = wide(PAIRS[what]), pairform.Cache()
    inputs = asked(("right", "right"))
    begun = model.generate(**inputs, max_new_tokens=1, eos_token_id=NEVER, cache=cache)
    reading = "cross_attention" if what == "cross-attention" else PLACE
    first = dict(cache.source)
    assert set(first) == {(layer, reading) for layer in range(2)}
    assert {part.keys.shape for part in first.values()} == {(3, 2, 24, 8)}
    prompt = {"decoder_input_ids": begun, "decoder_attention_mask": torch.cat((inputs["decoder_attention_mask"], one(3)), 1)}
    written = model.generate(**{**inputs, **prompt}, max_new_tokens=NEW, eos_token_id=NEVER, cache=cache)
    assert torch.equal(written, model.generate(**inputs, max_new_tokens=1 + NEW, eos_token_id=NEVER, use_cache=False))
    assert all(cache.source[place] is part for place, part in first.items())
    assert cache.length == 7 + NEW
    held = {place[0]: part.held.keys.shape[2] for place, part in cache.own.items()}
    assert held == {0: LOCAL[0], 1: cache.length}
    number = 3 * 2 * 8 * 2 * 8  # rows, key heads, channels, keys and values, bytes of a float64
    assert cache.bytes == number * (2 * 24 + LOCAL[0] + cache.length)


def one(rows: int) -> torch.Tensor:
    return torch.ones(rows, 1, dtype=torch.long)


def test_weights_of_a_cached_step_are_those_of_the_whole() -> None:
    model, cache = wide(pair()), pairform.Cache()
    source, target = padded(texts(0, (20, 20)), "left"), padded(texts(1, (12, 12)), "left")
    whole = model(source.ids, decoder_input_ids=target.ids, output_attentions=True)
    for part in torch.split(target.ids, [5, 4, 3], dim=1):
        step = model(source.ids, decoder_input_ids=part, output_attentions=True, cache=cache)
    for layer in range(2):
        own, read = step.decoder_attentions[layer], step.cross_attentions[layer]
        kept = 3 + LOCAL[0] if layer % 2 == 0 else 12
        assert own.shape == (2, 4, 3, kept)
        assert read.shape == (2, 4, 3, 20)
        torch.testing.assert_close(own, whole.decoder_attentions[layer][:, :, -3:, -kept:], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(read, whole.cross_attentions[layer][:, :, -3:], rtol=1e-9, atol=1e-9)


def test_rows_of_a_cache_go_on_as_their_own_batch() -> None:
    model, cache = wide(pair()), pairform.Cache()
    source, target = padded(texts(0, (20, 15, 9)), "left"), padded(texts(1, (8, 8, 8)), "left")
    whole = model(source.ids, source.mask, target.ids)
    model(source.ids, source.mask, target.ids[:, :7], cache=cache)
    order = torch.tensor([2, 0])
    last = model(source.ids[order], source.mask[order], target.ids[order, 7:], cache=cache.rows(order))
    torch.testing.assert_close(last.logits[:, 0], whole.logits[order, 7], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("part", ["q_proj", "k_proj", "v_proj", "sinks", "feed_forward"])
def test_gradients_with_a_cache_are_those_without(part: str) -> None:
    """Whatever is trained: autograd keeps keys and values for it, so that none is written over."""
    document = pairform.patch(pair(widths=(32, 32)), {"decoder": {"layer": {"branches": {"self_attention": {"sinks": True}}}}})
    model = wide(document.document(), torch.float64)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(part in name)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    source, ids = texts(0, (9,))[0][None], texts(1, (6,))[0][None]
    whole = model(source, decoder_input_ids=ids).logits
    cache = pairform.Cache()
    parts = [model(source, decoder_input_ids=some, cache=cache).logits for some in torch.split(ids, [3, 1, 1, 1], 1)]
    given = torch.autograd.grad(torch.cat(parts, 1).square().sum(), trained)
    expected = torch.autograd.grad(whole.square().sum(), trained)
    for got, wanted in zip(given, expected, strict=True):
        torch.testing.assert_close(got, wanted)
