"""A call of `generate` that cannot be done is an error that names the argument."""

from functools import partial
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

import pairform
from tests.broken.damage import refused
from tests.catalogue.places import model as document
from tests.small_pairs import small_pair, tokens

IDS = tokens(0, rows=2, length=6)
PROMPT = IDS % 23
PAIR = pairform.build(small_pair(), seed=0).eval()
DECODER = pairform.build(document("decoder_only"), seed=0).eval()
SAMPLE = {"do_sample": True}
HUGE = 10**5000

OPTIONS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "max_new_tokens a float": ({"max_new_tokens": 4.0}, ("max_new_tokens", "4.0", "a whole number")),
    "max_new_tokens a string": ({"max_new_tokens": "4"}, ("max_new_tokens", "'4'")),
    "max_new_tokens true": ({"max_new_tokens": True}, ("max_new_tokens", "True")),
    "max_new_tokens 0": ({"max_new_tokens": 0}, ("max_new_tokens", "0", "greater than or equal to 1")),
    "max_new_tokens 1e12": ({"max_new_tokens": 10**12}, ("max_new_tokens", "1000000000000", "to 1048576")),
    "max_new_tokens of 5000 digits": ({"max_new_tokens": HUGE}, ("max_new_tokens", "bits")),
    "max_length below the prompt": (
        {"max_length": 6, "max_new_tokens": None, "decoder_input_ids": IDS},
        ("max_length", "6", "from 7"),
    ),
    "a misspelt argument": ({"num_beam": 2}, ("num_beam", "Did you mean num_beams")),
    "eos a string": ({"eos_token_id": "1"}, ("eos_token_id", "'1'")),
    "eos negative": ({"eos_token_id": -1}, ("eos_token_id", "-1", "greater than or equal to 0")),
    "eos beyond": ({"eos_token_id": [1, 97]}, ("eos_token_id", "97", "from 0 to 96")),
    "eos a float": ({"eos_token_id": 1.0}, ("eos_token_id", "1.0")),
    "eos a float tensor": ({"eos_token_id": torch.ones(2)}, ("eos_token_id", "1.0", "a whole number")),
    "temperature 0": ({**SAMPLE, "temperature": 0}, ("temperature", "0", "do_sample=False")),
    "temperature 1e-40": ({**SAMPLE, "temperature": 1e-40}, ("temperature", "1e-40", "1e-06")),
    "temperature infinite": ({**SAMPLE, "temperature": float("inf")}, ("temperature", "inf")),
    "temperature NaN": ({**SAMPLE, "temperature": float("nan")}, ("temperature", "nan")),
    "temperature a string": ({**SAMPLE, "temperature": "warm"}, ("temperature", "'warm'")),
    "top_k negative": ({**SAMPLE, "top_k": -1}, ("top_k", "-1", "greater than or equal to 0")),
    "top_k a float": ({**SAMPLE, "top_k": 2.5}, ("top_k", "2.5")),
    "top_p 0": ({**SAMPLE, "top_p": 0.0}, ("top_p", "0.0")),
    "top_p above 1": ({**SAMPLE, "top_p": 1.5}, ("top_p", "1.5")),
    "top_p NaN": ({**SAMPLE, "top_p": float("nan")}, ("top_p", "nan")),
    "seed a string": ({**SAMPLE, "seed": "1"}, ("seed", "'1'")),
    "seed a float": ({**SAMPLE, "seed": 1.5}, ("seed", "1.5")),
    "seed a list": ({**SAMPLE, "seed": [1]}, ("seed", "list")),
    "seed of many bits": ({**SAMPLE, "seed": 1 << 70}, ("seed", "71 bits")),
    "do_sample a string": ({"do_sample": "yes"}, ("do_sample", "'yes'", "true or false")),
    "use_cache a number": ({"use_cache": 1}, ("use_cache", "1")),
    "beams 0": ({"num_beams": 0}, ("num_beams", "0")),
    "beams true": ({"num_beams": True}, ("num_beams", "True")),
    "more beams than words": ({"num_beams": 98}, ("num_beams", "98", "to 97")),
    "more sequences than beams": ({"num_beams": 2, "num_return_sequences": 3}, ("num_return_sequences", "3", "to 2")),
    "length_penalty NaN": ({"num_beams": 2, "length_penalty": float("nan")}, ("length_penalty", "nan")),
    "length_penalty infinite": ({"num_beams": 2, "length_penalty": float("inf")}, ("length_penalty", "inf")),
    "length_penalty 1e6": ({"num_beams": 2, "length_penalty": 1e6}, ("length_penalty", "1000000.0")),
    "early_stopping a word": ({"num_beams": 2, "early_stopping": "now"}, ("early_stopping", "'now'")),
    "early_stopping a tensor": ({"num_beams": 2, "early_stopping": torch.ones(2)}, ("early_stopping", "[1.0, 1.0]")),
    "a streamer that is none": ({"streamer": 5}, ("streamer", "5", "a function")),
    "a cache that is none": ({"cache": []}, ("cache", "list", "Cache")),
    "an empty source": ({"input_ids": IDS[:, :0]}, ("input_ids", "(2, 0)")),
    "no rows": ({"input_ids": IDS[:0]}, ("input_ids", "(0, 6)")),
    "a list as the source": ({"input_ids": IDS.tolist()}, ("input_ids", "list")),
    "an id beyond": ({"input_ids": IDS + 97}, ("input_ids", "from 0 to 96")),
    "an empty prompt": ({"decoder_input_ids": IDS[:, :0]}, ("decoder_input_ids", "(2, 0)")),
    "a prompt of other rows": ({"decoder_input_ids": IDS[:1]}, ("decoder_input_ids", "1 rows", "2, as in the source")),
    "a mask without its prompt": (
        {"decoder_attention_mask": torch.ones_like(IDS)},
        ("decoder_attention_mask", "both or neither"),
    ),
    "an additive mask": ({"attention_mask": torch.zeros(2, 6)}, ("attention_mask", "float32")),
    "outputs as a string": ({"input_ids": None, "encoder_outputs": "out"}, ("encoder_outputs", "str")),
    "nothing": ({"input_ids": None}, ("input_ids", "nothing to read")),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_a_call_that_cannot_be_done_is_refused(name: str) -> None:
    given, words = OPTIONS[name]
    assert len(refused(lambda: PAIR.generate(**{"input_ids": IDS, "max_new_tokens": 3, **given}), *words)) < 2000


@pytest.mark.parametrize("name", ["encoder_outputs", "decoder_input_ids", "decoder_attention_mask"])
def test_a_decoder_alone_refuses_what_it_would_not_read(name: str) -> None:
    given: dict[str, Any] = {name: PROMPT}
    refused(lambda: DECODER.generate(PROMPT, max_new_tokens=2, **given), name, "decoder_only")


def test_a_decoder_alone_needs_a_prompt() -> None:
    refused(lambda: DECODER.generate(max_new_tokens=2), "input_ids")
    refused(lambda: DECODER.generate(PROMPT[:, :0], max_new_tokens=2), "input_ids", "(2, 0)")


@pytest.mark.parametrize("options", [{}, {"do_sample": True}, {"num_beams": 2}, {"use_cache": False}], ids=str)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_no_token_is_chosen_from_logits_that_are_no_numbers(value: float, options: dict[str, Any]) -> None:
    model = pairform.build(small_pair(), seed=0)
    with torch.no_grad():
        model.get_parameter("decoder.norm.weight").fill_(value)
    refused(lambda: model.generate(IDS, max_new_tokens=3, **options), "NaN or infinite logits")


def test_what_says_the_same_in_another_form_is_taken() -> None:
    greedy = PAIR.generate(IDS, max_new_tokens=9, eos_token_id=[1, 40])
    forms: tuple[Any, ...] = (torch.tensor([1, 40]), np.array([1, 40]), (1, np.int64(40)), {1, 40})
    nine: Any = np.int64(9)
    for ends in forms:
        assert torch.equal(PAIR.generate(IDS, max_new_tokens=nine, eos_token_id=ends), greedy)
    one, end = PAIR.generate(IDS, max_new_tokens=9, eos_token_id=40), cast(Any, torch.tensor(40))
    assert torch.equal(PAIR.generate(IDS, max_new_tokens=9, eos_token_id=end), one)


def test_top_k_of_zero_keeps_all_tokens() -> None:
    drawn = [PAIR.generate(IDS, max_new_tokens=20, eos_token_id=(), do_sample=True, seed=3, top_k=kept) for kept in (97, 0)]
    assert torch.equal(*drawn)


def test_the_coldest_temperature_is_greedy() -> None:
    drawn = PAIR.generate(IDS, max_new_tokens=20, eos_token_id=(), do_sample=True, temperature=1e-6)
    assert torch.equal(drawn, PAIR.generate(IDS, max_new_tokens=20, eos_token_id=()))


def test_as_many_beams_as_words_are_followed() -> None:
    assert DECODER.generate(PROMPT, max_new_tokens=2, num_beams=23, num_return_sequences=23).shape[0] == 46


def begun(model: pairform.Model, ids: Tensor, **options: Any) -> tuple[pairform.Cache, Tensor]:
    cache = pairform.Cache()
    return cache, model.generate(ids, max_new_tokens=4, eos_token_id=(), cache=cache, **options)


def test_a_cache_is_refused_beside_another_prompt() -> None:
    """A shorter one, one that begins otherwise, one of other rows. One that goes on is taken."""
    cache, written = begun(DECODER, PROMPT)
    for prompt, words in (
        (PROMPT, ("cache", "9 cached tokens", "a prompt of 6")),
        (written.roll(1, 1), ("cache", "at place 0")),
        (written[:1], ("cache", "2 rows")),
    ):
        refused(partial(DECODER.generate, prompt, max_new_tokens=2, cache=cache), *words)
    longer = DECODER.generate(written, max_new_tokens=2, eos_token_id=(), cache=cache)
    assert torch.equal(longer, DECODER.generate(PROMPT, max_new_tokens=6, eos_token_id=()))


def test_a_cache_is_refused_beside_another_source() -> None:
    cache, written = begun(PAIR, IDS)
    other = IDS.clone()
    other[1, 3] = 90
    for source, words in ((other, "another source"), (IDS[:, :4], "2 rows of 6 tokens")):
        refused(partial(PAIR.generate, source, decoder_input_ids=written, max_new_tokens=2, cache=cache), "cache", words)
    again = PAIR.generate(IDS, decoder_input_ids=written, max_new_tokens=2, eos_token_id=(), cache=cache)
    assert torch.equal(again, PAIR.generate(IDS, max_new_tokens=6, eos_token_id=()))
