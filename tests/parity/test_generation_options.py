"""Each setting of generation, alone and with others, gives the tokens and scores of transformers."""

import os
import random
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import WordLevel
from torch import Tensor
from transformers import PreTrainedTokenizerFast

import pairform
from tests.checkpoints import t5gemma2
from tests.parity import pictures, test_t5
from tests.parity.compare import FLOAT32, Batch, batch, create, reference

NEW = 12
PAD = 4
MIXES = int(os.environ.get("PAIRFORM_MIXES", "2"))
"""Random mixes for each model."""
KINDS = ("t5gemma", "t5gemma2", "t5", "gemma2")
VOCABULARY = 96


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[pairform.Model, Any]]:
    """Both models of a kind, with heads of their own, since tied ones of wide weights mostly repeat what they read."""

    @cache
    def both(kind: str) -> tuple[pairform.Model, Any]:
        folder = tmp_path_factory.mktemp(kind) / "model"
        if kind == "t5gemma2":
            t5gemma2(folder, tie_word_embeddings=False)
            return pairform.load(folder), pictures.reference(folder).eval()
        if kind == "t5":
            test_t5.create(folder, "t5", own_head=True)
            return pairform.load(folder), reference(folder).eval()
        name = "T5GemmaForConditionalGeneration" if kind == "t5gemma" else "Gemma2ForCausalLM"
        create(folder, name, tie_word_embeddings=False)
        return pairform.load(folder), reference(folder).eval()

    return both


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    """A word of two letters for each token."""
    words = {f"{chr(97 + number // 10)}{number % 10}": number for number in range(VOCABULARY)}
    words["abcdef"] = words.pop("j5")  # transformers measures prefixes of words with this text
    made = Tokenizer(WordLevel(words, unk_token="a0"))
    made.decoder = Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=made)


def read(kind: str) -> Batch:
    if kind == "t5gemma2":
        return pictures.text(length=14, padding="left")
    return batch(3, padding="left") if kind == "t5" else batch(padding="left", vocabulary=80)


def made_freely(kind: str, models: Any) -> Tensor:
    """What the model generates without any setting, `[batch, NEW]`."""
    ours, _ = models(kind)
    return ours.generate(**read(kind).inputs, max_new_tokens=NEW, eos_token_id=())[:, -NEW:]


def settings_for(free: Tensor, source: Tensor) -> dict[str, dict[str, Any]]:
    """Settings that change what was generated without any."""
    first, later, (begun, followed) = free[0].tolist(), free[1].tolist(), source[0, :2].tolist()
    ends = [first[3], later[6]]
    warm = {"do_sample": True, "temperature": 12.0}
    return {
        "ends": {"eos_token_id": ends},
        "max_length": {"max_new_tokens": None, "max_length": 23},
        "min_new_tokens": {"eos_token_id": ends, "min_new_tokens": 6},
        "min_length": {"eos_token_id": ends, "min_length": 6},
        "repetition_penalty": {"repetition_penalty": 2.5},
        "encoder_repetition_penalty": {"encoder_repetition_penalty": 3.0},
        "no_repeat_ngram_size 1": {"no_repeat_ngram_size": 1},
        "no_repeat_ngram_size 2": {"no_repeat_ngram_size": 2},
        "encoder_no_repeat_ngram_size 1": {"encoder_no_repeat_ngram_size": 1},
        "encoder_no_repeat_ngram_size 2": {
            "encoder_no_repeat_ngram_size": 2,
            "sequence_bias": [[[begun], 20.0], [[begun, followed], 90.0]],
        },
        "bad_words_ids": {"bad_words_ids": [first[1:2], first[3:5], later[5:8], [ends[0]]], "eos_token_id": ends},
        "sequence_bias": {"sequence_bias": [[first[1:2], -50.0], [[later[4], 17], 80.0], [[17, 18, 19], 70.0]]},
        "suppress_tokens": {"suppress_tokens": [first[2], later[2]]},
        "begin_suppress_tokens": {"begin_suppress_tokens": [row[0] for row in free.tolist()]},
        "forced_bos_token_id": {"forced_bos_token_id": 9},
        "forced_eos_token_id": {"forced_eos_token_id": [1, 5]},
        "forced and suppressed at the beginning": {"forced_bos_token_id": 9, "begin_suppress_tokens": [first[1], later[1]]},
        "exponential_decay_length_penalty": {"exponential_decay_length_penalty": [2, 1.7], "eos_token_id": [3, 8]},
        "stop_strings": {
            "stop_strings": [tokenizer().decode(first[4:6])[1:3], tokenizer().decode(later[2:3])],
            "tokenizer": tokenizer(),
            "eos_token_id": [1],
        },
        "sampling": {"do_sample": True},
        "temperature": warm,
        "top_k": {**warm, "top_k": 5},
        "top_p": {**warm, "top_p": 0.7, "top_k": 0},
        "min_p": {**warm, "min_p": 0.2},
        "top_h": {**warm, "top_h": 0.4},
        "typical_p": {**warm, "typical_p": 0.6},
        "epsilon_cutoff": {**warm, "epsilon_cutoff": 0.011},
        "eta_cutoff": {**warm, "eta_cutoff": 0.2},
        "renormalize_logits": {**warm, "renormalize_logits": True},
        "sequences": {**warm, "num_return_sequences": 3, "eos_token_id": ends},
        "beams": {"num_beams": 3, "num_return_sequences": 2, "eos_token_id": ends},
        "length_penalty": {"num_beams": 3, "length_penalty": 2.0, "eos_token_id": ends, "early_stopping": "never"},
        "beam sampling": {**warm, "num_beams": 3, "num_return_sequences": 3, "eos_token_id": ends},
        "start": {"decoder_start_token_id": 7},
    }


NAMES = [*settings_for(*torch.zeros(2, 2, NEW).long())]


def check(kind: str, models: Any, given: dict[str, Any], **more: Any) -> tuple[Any, Any]:
    """Tokens and scores are those of transformers. Gives both outputs."""
    ours, theirs = models(kind)
    options = {"max_new_tokens": NEW, "pad_token_id": PAD, "eos_token_id": [], **given}
    asked = {"output_scores": True, "output_logits": True}
    as_theirs = {**options, "eos_token_id": options["eos_token_id"] or None}
    torch.manual_seed(3)
    expected = theirs.generate(**read(kind).inputs, **as_theirs, **asked, **more, return_dict_in_generate=True)
    torch.manual_seed(3)
    found = ours.generate(**read(kind).inputs, **options, **asked, **more, return_dict_in_generate=True)
    assert torch.equal(found.sequences, expected.sequences), given
    for name in ("scores", "logits"):
        for mine, wanted in zip(getattr(found, name), getattr(expected, name), strict=True):
            finite = wanted.isfinite() & (wanted > -1e8)
            assert torch.equal(mine.isfinite() & (mine > -1e8), finite)
            most = float(wanted[finite].abs().max())
            torch.testing.assert_close(mine[finite], wanted[finite], rtol=0, atol=most * FLOAT32)
    if options.get("num_beams", 1) > 1:
        torch.testing.assert_close(found.sequences_scores, expected.sequences_scores, rtol=FLOAT32, atol=FLOAT32)
        assert torch.equal(found.beam_indices, expected.beam_indices.long())
    return found, expected


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_setting_alone(kind: str, name: str, models: Any) -> None:
    if kind == "gemma2" and name in ("start", "max_length"):
        pytest.skip("a prompt of 14 tokens, and no start token")
    free = made_freely(kind, models)
    given = settings_for(free, read(kind).ids)[name]
    found, _ = check(kind, models, given)
    if not (name.startswith("forced") and kind == "gemma2") and name not in ("sampling", "renormalize_logits"):
        assert not torch.equal(found.sequences[:, -NEW:], free), "the setting changes what is generated"


@pytest.mark.parametrize("seed", range(MIXES))
@pytest.mark.parametrize("kind", KINDS)
def test_settings_together(kind: str, seed: int, models: Any) -> None:
    rng = random.Random(f"{kind} {seed}")
    pool = settings_for(made_freely(kind, models), read(kind).ids)
    names = [name for name in NAMES if kind != "gemma2" or name not in ("start", "max_length")]
    given: dict[str, Any] = {}
    for name in rng.sample(names, rng.randint(2, 5)):
        given |= pool[name]
    if given.get("num_return_sequences", 1) > given.get("num_beams", 1) and "num_beams" in given:
        given["num_return_sequences"] = given["num_beams"]
    if not given.get("do_sample"):
        given.setdefault("num_beams", rng.choice([1, 1, 2, 4]))
    found, _ = check(kind, models, given)
    torch.manual_seed(3)
    options = {"max_new_tokens": NEW, "pad_token_id": PAD, "eos_token_id": [], **given, "use_cache": False}
    assert torch.equal(models(kind)[0].generate(**read(kind).inputs, **options), found.sequences)
