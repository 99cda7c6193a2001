"""Prompt lookup writes the tokens of plain decoding, in fewer passes of the decoder."""

from typing import Any

import pytest
import torch
from torch import Tensor

import pairform
from pairform.assemblies.generation.lookup import Lookup
from pairform.registry import InputError
from tests.merged.pairs import pair, wide
from tests.small_pairs import sharing_pair, small_pair, tokens

NEW = 40
"""New tokens: many times the windows."""
REPEATED = torch.randint(3, 96, (1, 6), generator=torch.Generator().manual_seed(0)).repeat(1, 3)


def models() -> dict[str, Any]:
    return {
        "T5Gemma": pairform.build(small_pair(), seed=0, dtype=torch.float64),
        "T5Gemma 2": pairform.build(small_pair("t5gemma2-270m-270m"), seed=0, dtype=torch.float64),
        "merged": wide(pair()),
        "shared keys": pairform.build(sharing_pair(), seed=0, dtype=torch.float64),
    }


def passes(model: pairform.Model, source: Tensor, **settings: Any) -> tuple[Tensor, int]:
    """The tokens, and how often the decoder ran."""
    ran: list[object] = []
    assert model.decoder is not None
    handle = model.decoder.register_forward_hook(lambda *_: ran.append(None))
    written: Tensor = model.generate(source, max_new_tokens=NEW, eos_token_id=(), **settings)
    handle.remove()
    return written, len(ran)


@pytest.mark.parametrize(
    "settings", [{}, {"repetition_penalty": 1.3, "no_repeat_ngram_size": 4}, {"do_sample": True, "seed": 1}]
)
@pytest.mark.parametrize("name", ["T5Gemma", "T5Gemma 2", "merged", "shared keys"])
def test_lookup_writes_the_tokens_of_plain_decoding(name: str, settings: dict[str, Any]) -> None:
    model = models()[name]
    expected, _ = passes(model, REPEATED, **settings)
    for count in (1, 3, 100):
        written, _ = passes(model, REPEATED, prompt_lookup_num_tokens=count, max_matching_ngram_size=1, **settings)
        assert torch.equal(written, expected)


def test_text_that_repeats_takes_fewer_passes() -> None:
    model = models()["T5Gemma"]
    # the model repeats one token, since its embeddings are tied
    expected, plain = passes(model, REPEATED)
    written, ran = passes(model, REPEATED, prompt_lookup_num_tokens=4)
    assert torch.equal(written, expected)
    assert plain == NEW
    assert ran < plain / 2


def test_end_tokens_streamers_and_scores_are_those_of_plain_decoding() -> None:
    model = models()["merged"]
    expected = model.generate(REPEATED, max_new_tokens=NEW, eos_token_id=())
    end = int(expected[0, NEW // 2])
    streams: list[list[int]] = [[], []]
    results = [
        model.generate(
            REPEATED,
            max_new_tokens=NEW,
            eos_token_id=end,
            streamer=lambda token, stream=stream: stream.extend(token.tolist()),
            return_dict_in_generate=True,
            output_scores=True,
            **settings,
        )
        for stream, settings in zip(streams, ({}, {"prompt_lookup_num_tokens": 5}), strict=True)
    ]
    assert torch.equal(results[0].sequences, results[1].sequences)
    assert streams[0] == streams[1]
    assert results[0].scores is not None
    assert results[1].scores is not None
    torch.testing.assert_close(results[0].scores, results[1].scores)


@pytest.mark.parametrize("name", ["T5Gemma", "merged"])
def test_the_cache_serves_another_call(name: str) -> None:
    model = models()[name]
    expected = model.generate(REPEATED, max_new_tokens=NEW, eos_token_id=())
    cache = pairform.Cache()
    settings: dict[str, Any] = {"eos_token_id": (), "cache": cache, "prompt_lookup_num_tokens": 6}
    first = model.generate(REPEATED, max_new_tokens=NEW // 2, **settings)
    assert cache.length == first.shape[1] - 1
    whole = model.generate(REPEATED, decoder_input_ids=first, max_new_tokens=NEW // 2, **settings)
    assert torch.equal(whole, expected)


def test_a_prompt_with_padding_and_a_decoder_alone() -> None:
    model = models()["merged"]
    prompt, mask = torch.tensor([[0, 0, 2, 9, 8, 9]]), torch.tensor([[0, 0, 1, 1, 1, 1]])
    given: dict[str, Any] = {"decoder_input_ids": prompt, "decoder_attention_mask": mask}
    expected, _ = passes(model, REPEATED, **given)
    assert torch.equal(passes(model, REPEATED, prompt_lookup_num_tokens=3, **given)[0], expected)


def test_drafts() -> None:
    lookup = Lookup(3, 2, [4, 5, 6, 7, 5, 9])
    assert lookup.draft([2, 5], 8) == [6, 7, 5]  # one token, at its first occurrence in the source
    assert lookup.draft([2, 7, 5], 8) == [9]  # two tokens are looked for before one
    assert lookup.draft([8, 3, 8, 2, 8], 8) == [3, 8, 2]  # in the text so far
    assert lookup.draft([2, 5], 1) == [6]
    assert lookup.draft([2, 5], 0) == []
    assert lookup.draft([2], 8) == []


def state() -> dict[str, Any]:
    document = pair("separate")
    document["decoder"] |= {"cycle": [{}]}
    document["decoder"]["layer"]["branches"]["self_attention"] = {"name": "retention", "heads": 4, "mask": {"causal": True}}
    return document


@pytest.mark.parametrize(
    ("settings", "rows", "expected"),
    [
        ({}, 2, "one row"),
        ({"num_beams": 2}, 1, "without beams"),
        ({"do_sample": True, "num_return_sequences": 2}, 1, "one row"),
        ({"use_cache": False}, 1, "KV cache"),
        ({"prompt_lookup_num_tokens": 0}, 1, "prompt_lookup_num_tokens"),
    ],
)
def test_what_is_not_supported(settings: dict[str, Any], rows: int, expected: str) -> None:
    model = models()["T5Gemma"]
    with pytest.raises(InputError, match=expected):
        model.generate(tokens(rows=rows), **{"max_new_tokens": 3, "prompt_lookup_num_tokens": 3} | settings)


def test_a_state_cannot_go_back() -> None:
    with pytest.raises(InputError, match="recurrent states"):
        wide(state()).generate(tokens(rows=1), max_new_tokens=3, prompt_lookup_num_tokens=3)
