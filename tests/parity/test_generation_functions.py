"""Functions that a call passes to `generate`, its outputs, and settings that are refused."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE, WordLevel
from tokenizers.trainers import BpeTrainer
from torch import Tensor
from transformers import LogitsProcessorList, MaxTimeCriteria, StoppingCriteriaList

import pairform
from pairform.assemblies.generation.stopping import StopStrings
from pairform.assemblies.modeling.generate_arguments import SettingArguments
from pairform.assemblies.specs.generation_names import HARMLESS, UNSUPPORTED
from tests.broken.damage import refused
from tests.parity.compare import batch, create, reference
from tests.small_pairs import small_pair, tokens

NEW = 10
MODES: list[dict[str, Any]] = [
    {},
    {"num_beams": 3, "num_return_sequences": 2},
    {"do_sample": True, "temperature": 12.0, "num_return_sequences": 2},
]
IDS = tokens(0, rows=2, length=6)
PAIR = pairform.build(small_pair(), seed=0).eval()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[pairform.Model, Any]:
    folder = tmp_path_factory.mktemp("functions") / "model"
    create(folder, "T5GemmaForConditionalGeneration", tie_word_embeddings=False)
    return pairform.load(folder), reference(folder).eval()


def same(models: tuple[pairform.Model, Any], **given: Any) -> Tensor:
    """The tokens of transformers and of ours, which are equal."""
    ours, theirs = models
    read = batch(padding="left", vocabulary=80)
    options = {"max_new_tokens": NEW, "pad_token_id": 4, "eos_token_id": [52, 34], **given}
    torch.manual_seed(2)
    expected: Tensor = theirs.generate(**read.inputs, **options)
    torch.manual_seed(2)
    assert torch.equal(ours.generate(**read.inputs, **options), expected)
    return expected


def upside_down(tokens: Tensor, scores: Tensor) -> Tensor:
    return -scores


def after_six(tokens: Tensor, scores: Any) -> Tensor:
    return torch.full((len(tokens),), tokens.shape[1] > 6) | (tokens[:, -1] == 78)


def even_after_odd(row: int, tokens: Tensor) -> Sequence[int]:
    return range(1 - int(tokens[-1]) % 2, 96 - row, 2)


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_functions_on_scores_are_those_of_transformers(mode: dict[str, Any], models: Any) -> None:
    free = same(models, **mode)
    penalty = transformers.RepetitionPenaltyLogitsProcessor(3.0)
    assert not torch.equal(same(models, logits_processor=LogitsProcessorList([upside_down, penalty]), **mode), free)
    same(models, logits_processor=LogitsProcessorList([penalty]), **mode)
    assert torch.equal(
        *(
            models[0].generate(**batch().inputs, **mode, seed=1 if "do_sample" in mode else None, logits_processor=given)
            for given in (upside_down, [upside_down])
        )
    )


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_functions_that_end_rows_are_those_of_transformers(mode: dict[str, Any], models: Any) -> None:
    free = same(models, **mode)
    criteria = StoppingCriteriaList([after_six, MaxTimeCriteria(1000.0)])
    assert same(models, stopping_criteria=criteria, **mode).shape[1] <= 7 < free.shape[1]


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_allowed_tokens_are_those_of_transformers(mode: dict[str, Any], models: Any) -> None:
    found = same(models, prefix_allowed_tokens_fn=even_after_odd, eos_token_id=[95], **mode)
    assert bool(((found[:, 1:] + found[:, :-1]) % 2 == 1).all())


def test_no_more_than_the_time_given() -> None:
    assert PAIR.generate(IDS, max_new_tokens=500, max_time=1e-6, eos_token_id=()).shape == (2, 2)


def test_stop_strings_need_a_tokenizer_of_any_library(models: Any) -> None:
    ours, source = models[0], batch(vocabulary=80).ids[1:2]
    refused(lambda: ours.generate(source, stop_strings="a"), "tokenizer", "stop_strings")
    words = Tokenizer(WordLevel({f"w{number}": number for number in range(97)}, unk_token="w0"))
    free = ours.generate(source, max_new_tokens=NEW, eos_token_id=())
    row = free[0].tolist()
    end = next(place for place in range(3, NEW) if row[place] not in row[:place])
    given = {"stop_strings": [f" w{row[end]}", "?"], "tokenizer": words}
    assert torch.equal(ours.generate(source, max_new_tokens=NEW, eos_token_id=(), **given), free[:, : end + 1])


@pytest.mark.parametrize("kind", ["bytes", "metaspace"])
def test_stop_strings_end_rows_where_transformers_ends_them(kind: str) -> None:
    """Random tokens of a trained tokenizer, with characters of several bytes, and strings that overlap themselves."""
    words = Tokenizer(BPE(unk_token="?", byte_fallback=kind == "metaspace"))
    texts = ["a cat, a cat and a hat; ééé aa aaa stop.\n\nstop. the end"] * 3
    if kind == "bytes":
        words.pre_tokenizer, words.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        words.pre_tokenizer, words.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        alphabet = list("abcdef")  # transformers measures prefixes of words with this text
    words.train_from_iterator(
        texts, BpeTrainer(vocab_size=300, initial_alphabet=alphabet, special_tokens=["?"], show_progress=False)
    )
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=words)
    strings = ("stop.", "aa", "é", " a", "cat, a", "the end")
    rows = [
        random.Random(seed).choices([*words.encode(texts[0]).ids, *range(1, words.get_vocab_size())], k=40)
        for seed in range(40)
    ]
    found, expected = StopStrings(strings, words), transformers.StopStringCriteria(theirs, list(strings))
    for length in range(2, 41):
        tokens = torch.tensor(rows)[:, :length]
        assert torch.equal(found(tokens, None), expected(tokens, None)), length


def test_the_output_has_what_was_asked_for() -> None:
    asked = {"output_scores": True, "output_logits": True}
    found = PAIR.generate(IDS, max_new_tokens=4, eos_token_id=(), return_dict_in_generate=True)
    assert (found.scores, found.logits, found.sequences_scores, found.beam_indices) == (None,) * 4
    found = PAIR.generate(IDS, max_new_tokens=4, eos_token_id=(), return_dict_in_generate=True, **cast(Any, asked))
    assert isinstance(found, pairform.GenerationOutput)
    assert found.scores is not None
    assert torch.equal(torch.stack(found.scores).argmax(-1).T, found.sequences[:, 1:])
    config = {"return_dict_in_generate": True, "max_new_tokens": 4}
    assert isinstance(PAIR.generate(IDS, generation_config=config), pairform.GenerationOutput)
    assert isinstance(PAIR.generate(IDS, max_new_tokens=4, **cast(Any, asked)), Tensor)


def test_a_seed_is_for_one_call() -> None:
    """A generator of its own, which leaves torch's random state as it is."""
    options: Any = {"max_new_tokens": 8, "do_sample": True, "temperature": 3.0, "eos_token_id": ()}
    state = torch.random.get_rng_state()
    drawn = [PAIR.generate(IDS, seed=seed, **options) for seed in (0, 0, 1)]
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_the_arguments_are_the_fields_of_the_spec() -> None:
    assert SettingArguments.__annotations__.keys() | {"return_dict_in_generate"} == pairform.GenerationSpec.model_fields.keys()
    described = [name for name, field in pairform.GenerationSpec.model_fields.items() if field.description]
    assert described == list(pairform.GenerationSpec.model_fields)


def test_every_setting_of_transformers_has_a_place() -> None:
    """Its names are ours with the same defaults, are not supported, or change nothing."""
    theirs = transformers.GenerationConfig()
    ours = pairform.GenerationSpec.model_fields
    own = {name for name in vars(theirs) if not name.startswith("_") or name == "_from_model_config"}
    assert own - ours.keys() - UNSUPPORTED.keys() - HARMLESS == set()
    defaults = theirs._get_default_generation_params()
    assert {name: ours[name].default for name in ours if name in defaults} == {
        name: {"max_length": None}.get(name, value) if name == "max_length" else value
        for name, value in defaults.items()
        if name in ours
    }
    everything = pairform.GenerationSpec.of(transformers.GenerationConfig(**defaults))
    assert PAIR.generate(IDS, generation_config=everything).shape[1] <= 20


REFUSED: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "diverse beams": ({"num_beam_groups": 2, "num_beams": 4}, ("num_beam_groups", "diverse beam search")),
    "contrastive search": ({"penalty_alpha": 0.6, "top_k": 4}, ("penalty_alpha", "contrastive search")),
    "constraints": ({"force_words_ids": [[1]]}, ("force_words_ids", "constrained beam search")),
    "DoLa": ({"dola_layers": "high"}, ("dola_layers", "DoLa")),
    "in a dict": ({"generation_config": {"guidance_scale": 2.0}}, ("guidance_scale", "classifier-free guidance")),
    "a misspelt name in a dict": ({"generation_config": {"num_beam": 2}}, ("num_beam", "Did you mean 'num_beams'")),
    "a value in a dict": ({"generation_config": {"top_p": 2.0}}, ("top_p", "2.0")),
    "a configuration that is none": ({"generation_config": 5}, ("generation_config", "int")),
    "a bad word beyond": ({"bad_words_ids": [[5, 97]]}, ("bad_words_ids", "97", "from 0 to 96")),
    "an empty bad word": ({"bad_words_ids": [[]]}, ("bad_words_ids[0]", "at least 1")),
    "a token beyond": ({"suppress_tokens": [97]}, ("suppress_tokens", "97")),
    "every token": ({"suppress_tokens": list(range(97))}, ("scores", "no token that can be chosen", "bad_words_ids")),
    "every token, drawn": (
        {"suppress_tokens": list(range(97)), "do_sample": True},
        ("scores", "no token that can be chosen"),
    ),
    "every token, with beams": (
        {"suppress_tokens": list(range(97)), "num_beams": 2},
        ("scores", "no token that can be chosen"),
    ),
    "penalty 0": ({"repetition_penalty": 0.0}, ("repetition_penalty", "0.0")),
    "a string of no characters": ({"stop_strings": [""]}, ("stop_strings[0]", "at least 1")),
    "no function": ({"logits_processor": [5]}, ("logits_processor", "5", "a function")),
    "no function that ends": ({"stopping_criteria": 5}, ("stopping_criteria", "5")),
    "no function of prefixes": ({"prefix_allowed_tokens_fn": [5]}, ("prefix_allowed_tokens_fn", "list")),
    "scores of no shape": ({"logits_processor": lambda tokens, scores: None}, ("logits_processor", "nothing")),
    "scores of another shape": (
        {"logits_processor": lambda tokens, scores: scores[:1]},
        ("logits_processor", "[1, 97]", "[2, 97]"),
    ),
    "ends of no kind": ({"stopping_criteria": lambda tokens, scores: None}, ("stopping_criteria", "nothing")),
    "allowed beyond": ({"prefix_allowed_tokens_fn": lambda row, tokens: [97]}, ("prefix_allowed_tokens_fn", "97")),
    "nothing allowed": (
        {"prefix_allowed_tokens_fn": lambda row, tokens: []},
        ("prefix_allowed_tokens_fn", "no token for row 0"),
    ),
    "the source's tokens without them": (
        {"input_ids": None, "encoder_outputs": PAIR(IDS, decoder_input_ids=IDS), "encoder_no_repeat_ngram_size": 2},
        ("encoder_no_repeat_ngram_size", "without input_ids"),
    ),
    "min_p without sampling": ({"min_p": 0.1}, ("min_p", "do_sample")),
}


def test_invalid_settings_are_refused_when_they_are_made() -> None:
    refused(lambda: pairform.GenerationSpec(top_p=1.5), "top_p", "1.5")
    refused(lambda: pairform.GenerationSpec(num_beam=2), "num_beam", "Did you mean 'num_beams'")
    assert pairform.GenerationSpec(top_k=None, eos_token_id=torch.tensor([1, 2])).given() == {"eos_token_id": [1, 2]}


def test_a_call_can_turn_an_unsupported_setting_off() -> None:
    model = pairform.build(small_pair(), seed=0)
    model.generation = pairform.GenerationSpec(guidance_scale=2.0, max_new_tokens=3)
    refused(lambda: model.generate(IDS), "guidance_scale", "`without`")
    assert model.generate(IDS, generation_config={"guidance_scale": 1.0}).shape == (2, 4)
    model.generation = model.generation.without(["guidance_scale"])
    assert model.generate(IDS).shape == (2, 4)


@pytest.mark.parametrize("name", REFUSED)
def test_settings_that_cannot_be_are_refused(name: str) -> None:
    given, words = REFUSED[name]
    refused(lambda: PAIR.generate(**{"input_ids": IDS, "max_new_tokens": 3, **given}), *words)


def test_tokens_of_a_larger_vocabulary_of_the_encoder_are_ignored(tmp_path: Path) -> None:
    spec = pairform.patch(small_pair(), {"encoder": {"vocabulary": 200}})
    model = pairform.build(spec, seed=0)
    source = torch.arange(150, 180).view(2, 15)
    options: Any = {"encoder_repetition_penalty": 2.0, "encoder_no_repeat_ngram_size": 1, "max_new_tokens": 4}
    assert torch.equal(model.generate(source, **options), model.generate(source, max_new_tokens=4))
