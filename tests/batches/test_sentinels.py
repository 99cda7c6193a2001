"""Sentinels and mask tokens, from the tokenizer or from ids that no text has."""

import re
from typing import Any

import pytest
from tokenizers import Tokenizer, models

import pairform
from pairform.training.data.batches import Ids
from pairform.training.data.marks import marks_of
from pairform.training.data.objectives import UL2, Marks, SpanCorruption
from pairform.training.data.tokens import open_tokens
from tests.batches.memory import ENCODER, SEPARATE, objective

SPEC = pairform.patch(SEPARATE, {"vocabulary": 1000})


def tokenizer(*tokens: str, ids: int = 300) -> Tokenizer:
    """The `tokens`, from id 100 on in this order, among others."""
    words = {f"word{number}": number for number in range(ids) if not 100 <= number < 100 + len(tokens)}
    return Tokenizer(models.WordLevel(words | {token: 100 + number for number, token in enumerate(tokens)}, "word0"))


def found(objective: Any, tokens: Tokenizer | None, spec: pairform.ModelSpec = SPEC) -> Marks:
    ids = Ids.of(spec)
    return marks_of(objective, ids, open_tokens(ids, tokens))


def test_a_pattern_names_sentinels_in_the_order_of_their_numbers() -> None:
    names = [f"<unused{number}>" for number in (10, 2, 0, 1)]
    tokens = tokenizer(*names, "<unused>", "<unusedx>", "x<unused7>", "<unused8>x", "<unused-1>")
    of = objective("span_corruption", window=20, sentinels="<unused{}>")
    assert found(of, tokens).sentinels.tolist() == [102, 103, 101, 100]
    odd = objective("span_corruption", window=20, sentinels="(.*){}")
    with pytest.raises(pairform.PairformError, match=r"found 0 tokens of the pattern '\(\.\*\)\{\}'"):
        found(odd, tokens)


def test_special_tokens_and_ids_outside_the_vocabulary_are_no_sentinels() -> None:
    tokens = Tokenizer(models.WordLevel({"<s0>": 0, "<s1>": 1, "<s2>": 2, "<s3>": 50, "<s4>": 51}, "<s0>"))
    assert found(objective("ul2", window=20, sentinels="<s{}>"), tokens).sentinels.tolist() == [50, 51], (
        "after pad, eos and bos"
    )


def test_spare_ids_are_those_above_the_tokenizer_or_above_bytes() -> None:
    of = objective("span_corruption", window=20)
    assert found(of, tokenizer()).sentinels.tolist() == [*range(300, 1000)]
    assert found(of, None).sentinels.tolist() == [*range(256 + 3, 1000)]


def test_gemma_has_too_few_for_ul2_at_4096_and_is_told_what_fits() -> None:
    """Gemma 2's tokenizer has 99 tokens `<unused0>` to `<unused98>`, and T5Gemma 2's mixture needs 205 at a window of 4096."""
    tokens = tokenizer(*(f"<unused{number}>" for number in range(99)), ids=1000)
    with pytest.raises(pairform.PairformError) as raised:
        found(objective("ul2", window=4096, sentinels="<unused{}>"), tokens)
    message = str(raised.value)
    assert "sentinels: found 99 tokens of the pattern '<unused{}>', expected at least 205, as sentinels" in message
    assert "99 fit a window of 1,990, or mean spans of 6.2 instead of 3 at rate 0.15, 20.6 instead of 12 at" in message
    with pytest.raises(pairform.PairformError, match="found 0 ids that no text has, expected at least 205"):
        found(objective("ul2", window=4096), tokens)


@pytest.mark.parametrize("sentinels", [1, 7, 50, 99, 204])
@pytest.mark.parametrize("window", [300, 1024, 4096])
def test_the_choices_that_fit_do_fit_and_are_the_best(window: int, sentinels: int) -> None:
    of = SpanCorruption(name="span_corruption", window=window)
    if of.needed <= sentinels:
        return
    sentence = of.fitting(sentinels)
    largest = int(re.findall(r"a window of ([\d,]+)", sentence)[0].replace(",", ""))
    assert of.needed_at(largest) <= sentinels < of.needed_at(largest + 1)
    longer = [
        tuple(map(float, found)) for found in re.findall(r"([\d.]+) instead of ([\d.]+) at rate (\.?[\d]+\.?\d*)", sentence)
    ]
    wrong = [denoiser for denoiser in UL2 if denoiser.counts(window)[1] > sentinels]
    assert [(denoiser.span, denoiser.rate) for denoiser in wrong] == [each[1:] for each in longer]
    for denoiser, (span, *_) in zip(wrong, longer, strict=True):
        better, shorter = (denoiser.model_copy(update={"span": length}) for length in (span, span - 0.1))
        assert better.counts(window)[1] <= sentinels < shorter.counts(window)[1]


def test_a_mask_token_is_found_by_name_or_id_or_is_the_first_spare_id() -> None:
    tokens = tokenizer("<mask>")
    assert found(objective("masked", mask="<mask>"), tokens).mask == 100
    assert found(objective("masked", mask=700), tokens).mask == 700
    assert found(objective("masked"), tokens).mask == 300
    assert found(objective("masked"), None).mask == 256 + 3
    words = found(objective("masked"), tokens).words
    assert (words.min(), words.max(), len(words)) == (3, 299, 297), "random words are of the text"


@pytest.mark.parametrize("mask", ["<mask>", "<bos>", 1, 1000])
def test_mask_tokens_that_are_special_or_not_there_are_refused(mask: object) -> None:
    tokens = Tokenizer(
        models.WordLevel({f"word{number}": number for number in range(300) if number != 2} | {"<bos>": 2}, "word0")
    )
    with pytest.raises(pairform.PairformError, match=r"data\.objective\.mask: found"):
        found(objective("masked", mask=mask), tokens)


def test_without_tokens_to_spare_a_mask_must_be_named() -> None:
    spec = pairform.patch(ENCODER, {"vocabulary": 300})
    with pytest.raises(pairform.PairformError, match=r"data.objective.mask: found no id that no text has.*Name one"):
        found(objective("masked"), tokenizer(), spec)
    with pytest.raises(pairform.PairformError, match=r"found '<unused\{\}>' with bytes as tokens"):
        found(objective("ul2", sentinels="<unused{}>"), None)
    with pytest.raises(pairform.PairformError, match=r"found 'unused', expected 'spare', or a pattern"):
        found(objective("ul2", sentinels="unused"), tokenizer())
