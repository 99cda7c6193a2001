"""Beam search gives the texts of transformers' beam search, in its order and with its scores."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import pairform
from tests.merged.pairs import padded, pair, texts, wide
from tests.parity.compare import FLOAT32, PADDINGS, batch, random_gemma2, random_t5gemma
from tests.parity.test_generation import cacheable, decoder_only, encoder_decoder

NEW = 16
OPTIONS: list[dict[str, Any]] = [
    {"num_beams": 3},
    {"num_beams": 4, "length_penalty": 0.0, "early_stopping": "never", "num_return_sequences": 4},
    {"num_beams": 4, "length_penalty": 2.0, "early_stopping": "never", "num_return_sequences": 2},
    {"num_beams": 2, "early_stopping": True, "num_return_sequences": 2},
    {"num_beams": 5, "length_penalty": -0.5, "num_return_sequences": 3},
]


def ends_of(model: pairform.Model, inputs: dict[str, Any]) -> list[int]:
    """End tokens that some beams write early, some late and some never."""
    free = model.generate(**inputs, max_new_tokens=NEW, eos_token_id=(), num_beams=3, num_return_sequences=3)[:, -NEW:]
    return sorted({int(free[0, 4]), int(free[4, 9]), int(free[-1, 12])})


def padded_behind(written: Tensor, ends: list[int], begin: int) -> Tensor:
    """`written` with pad behind each text's end. transformers puts the first end token there where pad is 0."""
    ended = torch.isin(written[:, begin:], torch.tensor(ends)).long().cumsum(1)
    behind = torch.nn.functional.pad(ended[:, :-1], (1 + begin, 0)) > 0
    return written.masked_fill(behind, 0)


def same_texts(ours: pairform.Model, theirs: Any, read: Any, options: dict[str, Any], ends: list[int]) -> bool:
    """Whether one of them ended before it had to."""
    begin = 1 if ours.encoder is not None else read.ids.shape[1]
    wanted = {"max_new_tokens": NEW, "eos_token_id": ends, **options}
    more = {"do_sample": False, "return_dict_in_generate": True, "output_scores": True}
    expected = theirs.generate(**read.inputs, **wanted, **more)
    written = ours.generate(**read.inputs, **wanted)
    assert torch.equal(written, padded_behind(expected.sequences, ends, begin))
    ended = torch.isin(written[:, begin:], torch.tensor(ends)).long()
    if ours.encoder is None:
        return bool(ended.any())
    again = {name: tensor.repeat_interleave(options.get("num_return_sequences", 1), 0) for name, tensor in read.inputs.items()}
    with torch.no_grad():
        logits = ours(**again, decoder_input_ids=written[:, :-1]).logits
    assert logits is not None
    chances = logits.log_softmax(-1).gather(2, written[:, 1:, None])[:, :, 0]
    real = (
        torch.isin(written[:, 1:], torch.tensor(ends)).long().cumsum(1) - torch.isin(written[:, 1:], torch.tensor(ends)).long()
        < 1
    )
    scores = (chances * real).sum(1) / real.sum(1) ** options.get("length_penalty", 1.0)
    torch.testing.assert_close(scores, expected.sequences_scores, rtol=10 * FLOAT32, atol=10 * FLOAT32)
    return bool(ended.any())


@pytest.mark.parametrize("seed", range(3))
def test_t5gemma(seed: int, tmp_path: Path) -> None:
    config = random_t5gemma(seed)
    ours, theirs = encoder_decoder(tmp_path / "model", seed=seed, **config | {"decoder": cacheable(config["decoder"])})
    read = batch(seed, padding=PADDINGS[seed % 3], vocabulary=80)
    ends = ends_of(ours, read.inputs)
    ended = [same_texts(ours, theirs, read, options, ends) for options in OPTIONS]
    assert any(ended)


@pytest.mark.parametrize("seed", range(2))
def test_gemma2(seed: int, tmp_path: Path) -> None:
    ours, theirs = decoder_only(tmp_path / "model", seed=seed, **cacheable(random_gemma2(seed)))
    read = batch(seed, padding=[None, "left"][seed % 2])
    ends = ends_of(ours, read.inputs)
    ended = [same_texts(ours, theirs, read, options, ends) for options in OPTIONS]
    assert any(ended)


@pytest.mark.parametrize("kernel", ["auto", "sdpa"])
@pytest.mark.parametrize("what", ["merged", "cross"])
def test_beams_are_the_same_without_a_cache(what: str, kernel: str) -> None:
    """Also where a kernel cannot read keys that beams share."""
    model = wide(pair(what))
    model.use_kernel(kernel)
    source, prompt = padded(texts(0, (24, 13, 20)), "left"), padded(texts(1, (7, 2, 5)), "right")
    inputs: dict[str, Any] = {"input_ids": source.ids, "attention_mask": source.mask, "decoder_input_ids": prompt.ids}
    wanted: dict[str, Any] = {
        "decoder_attention_mask": prompt.mask,
        "max_new_tokens": 40,
        "num_beams": 3,
        "num_return_sequences": 2,
    }
    ends = int(model.generate(**inputs, **wanted, eos_token_id=())[0, 20])
    cached = model.generate(**inputs, **wanted, eos_token_id=ends)
    assert cached.shape[0] == 6
    assert torch.equal(cached, model.generate(**inputs, **wanted, eos_token_id=ends, use_cache=False))


def test_beams_hold_their_source_once() -> None:
    model, cache = wide(pair()), pairform.Cache()
    source, prompt = padded(texts(0, (20, 15, 9)), "left"), padded(texts(1, (8, 8, 8)), "left")
    model(source.ids, source.mask, prompt.ids, cache=cache)
    beams = cache.spread(4).rows(torch.tensor([1, 0, 0, 2, 4, 5, 6, 7, 11, 10, 9, 9]))
    assert all(beams.source[place] is part for place, part in cache.source.items())
    assert {len(part.held.keys) for part in beams.own.values()} == {12}


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"num_beams": 0}, "num_beams"),
        ({"num_beams": 2, "num_return_sequences": 3}, "num_return_sequences"),
        ({"num_return_sequences": 2}, "num_return_sequences"),
        ({"num_beams": 2, "early_stopping": "always"}, "early_stopping"),
        ({"num_beams": 2, "streamer": print}, "streamer"),
    ],
)
def test_what_beams_cannot_do_is_refused(given: dict[str, Any], named: str) -> None:
    model = wide(pair())
    with pytest.raises(pairform.PairformError, match=named):
        model.generate(texts(0, (5,))[0][None], max_new_tokens=2, **given)
