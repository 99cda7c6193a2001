"""A folder's settings of generation: used by `generate` as transformers uses them, and written back."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, GenerationConfig

import pairform
from tests.broken.damage import edit_json, refused
from tests.checkpoints import gemma2, t5gemma, t5gemma2

GENERATION = "generation_config.json"
IDS = torch.tensor([[2, 5, 9, 7], [2, 9, 8, 11]])
CLASSES = {gemma2: AutoModelForCausalLM, t5gemma: AutoModelForSeq2SeqLM, t5gemma2: AutoModelForSeq2SeqLM}
SAMPLED = {"do_sample": True, "top_k": 64, "top_p": 0.95, "temperature": 6.0, "repetition_penalty": 1.3}
SETTINGS: list[dict[str, Any]] = [
    {**SAMPLED, "max_new_tokens": 9},
    {**SAMPLED, "max_length": 17, "min_p": 0.01, "cache_implementation": "hybrid", "transformers_version": "4.51.0"},
    # transformers' beams fill with the first end token where pad is 0
    {
        "num_beams": 3,
        "no_repeat_ngram_size": 2,
        "length_penalty": 1.4,
        "early_stopping": True,
        "max_length": 15,
        "pad_token_id": 3,
    },
    {"pad_token_id": 3, "min_new_tokens": 2, "bad_words_ids": [[7, 8], [6]], "suppress_tokens": [11], "top_k": None},
    {},
]
Make = Callable[..., Path]


def published(make: Make, folder: Path, settings: dict[str, Any]) -> Path:
    """A folder whose text ends at either of two tokens, with `settings` in its generation_config.json."""
    windows = {"layer_types": ["full_attention"] * 4}
    options: dict[Any, Any] = {gemma2: windows, t5gemma: {"encoder": windows, "decoder": windows}}
    make(folder, **options.get(make, {}))
    free = pairform.load(folder).generate(IDS, torch.ones_like(IDS), max_new_tokens=9, do_sample=False, eos_token_id=())
    edit_json(folder / GENERATION, lambda found: found.update(settings, eos_token_id=[1, int(free[0, -4])]))
    return folder


def theirs(folder: Path, make: Make, **given: Any) -> Tensor:
    torch.manual_seed(5)
    made: Tensor = CLASSES[make].from_pretrained(folder).generate(IDS, attention_mask=torch.ones_like(IDS), **given)
    return made


def ours(folder: Path, **given: Any) -> Tensor:
    torch.manual_seed(5)
    return pairform.load(folder).generate(IDS, torch.ones_like(IDS), **given)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("make", CLASSES)
def test_without_arguments_the_tokens_are_those_of_transformers(make: Make, settings: dict[str, Any], tmp_path: Path) -> None:
    folder = published(make, tmp_path / "model", settings)
    expected = theirs(folder, make)
    assert torch.equal(ours(folder), expected)
    for format in ("pairform", "transformers"):
        out = tmp_path / format
        pairform.save(pairform.load(folder), out, format=format)
        assert torch.equal(ours(out), expected)
        assert pairform.load(out).generation == pairform.load(folder).generation
    assert torch.equal(theirs(tmp_path / "transformers", make), expected)


def test_the_pad_token_of_the_settings_is_padding_in_a_prompt_without_a_mask(tmp_path: Path) -> None:
    folder = published(gemma2, tmp_path / "model", {"pad_token_id": 3, "max_new_tokens": 6})
    ids = torch.cat((torch.tensor([[3, 3], [2, 17]]), IDS), 1)
    expected = AutoModelForCausalLM.from_pretrained(folder).generate(ids)
    assert torch.equal(pairform.load(folder).generate(ids), expected)
    asked: dict[str, Any] = {"output_logits": True, "max_new_tokens": 1}
    found = [
        pairform.load(folder).generate(ids, mask, return_dict_in_generate=True, **asked).logits for mask in (None, ids > 0)
    ]
    assert found[0] is not None
    assert found[1] is not None
    assert not torch.allclose(found[0][0], found[1][0]), "the padding matters"


def test_settings_of_an_older_folder_are_those_at_the_top_of_its_config(tmp_path: Path) -> None:
    folder = t5gemma(tmp_path / "model")
    (folder / GENERATION).unlink()
    settings = {"num_beams": 2, "no_repeat_ngram_size": 1, "max_length": 9, "task_specific_params": {"x": {"num_beams": 5}}}
    edit_json(folder / "config.json", lambda found: found.update(settings))
    assert torch.equal(ours(folder), theirs(folder, t5gemma))
    assert pairform.load(folder).generation.num_beams == 2


def test_a_setting_of_the_call_goes_before_a_configuration_and_that_before_the_folder(tmp_path: Path) -> None:
    folder = published(t5gemma, tmp_path / "model", {**SAMPLED, "max_new_tokens": 9})
    given: dict[str, Any] = {"temperature": 9.0, "top_k": 12, "num_return_sequences": 2, "max_new_tokens": 6}
    config = GenerationConfig(do_sample=True, **given)
    expected = theirs(folder, t5gemma, generation_config=config, top_k=20)
    assert expected.shape == (4, 7)
    for form in (config, given, pairform.GenerationSpec(**given)):
        assert torch.equal(ours(folder, generation_config=form, top_k=20), expected)
    greedy = {"do_sample": False, "num_return_sequences": 1}
    assert torch.equal(ours(folder, **greedy), theirs(folder, t5gemma, **greedy))


def test_settings_that_are_changed_in_memory_are_saved(tmp_path: Path) -> None:
    model = pairform.load(published(t5gemma, tmp_path / "model", {"top_k": 7, "do_sample": True}))
    ends = model.spec.tokens.ends
    assert model.generation.given() == {"top_k": 7, "do_sample": True}
    model.generation = model.generation.updated(pairform.GenerationSpec(max_new_tokens=3, eos_token_id=5, do_sample=False))
    assert model.generate(IDS).shape == (2, 4)
    for format in ("pairform", "transformers"):
        pairform.save(model, tmp_path / format, format=format)
        written = json.loads((tmp_path / format / GENERATION).read_text())
        assert (written["max_new_tokens"], written["top_k"], written["do_sample"]) == (3, 7, False)
        assert torch.equal(ours(tmp_path / format), model.generate(IDS, torch.ones_like(IDS)))
    assert pairform.load(tmp_path / "pairform").spec.tokens.ends == ends, "the spec is as it was"


def test_a_patch_of_the_tokens_goes_before_the_folders_settings(tmp_path: Path) -> None:
    folder = published(t5gemma, tmp_path / "model", {})
    model = pairform.load(folder, patch={"tokens": {"eos": 95}})
    assert torch.equal(
        model.generate(IDS, max_new_tokens=9), pairform.load(folder).generate(IDS, max_new_tokens=9, eos_token_id=95)
    )


def test_a_setting_that_is_not_supported_is_kept_and_rejected_when_it_would_be_used(tmp_path: Path) -> None:
    folder = published(gemma2, tmp_path / "model", {"guidance_scale": 1.5, "max_new_tokens": 3, "forced_decoder_ids": [[1, 2]]})
    model = pairform.load(folder)
    refused(lambda: model.generate(IDS), "guidance_scale", "classifier-free guidance")
    pairform.save(model, tmp_path / "out")
    assert json.loads((tmp_path / "out" / GENERATION).read_text())["guidance_scale"] == 1.5
    model.generation = pairform.GenerationSpec()
    assert model.generate(IDS).shape == (2, 24)


BROKEN: dict[str, Any] = {
    "temperature": "hot",
    "top_p": 1.5,
    "num_beams": 0,
    "max_new_tokens": -1,
    "early_stopping": "soon",
    "bad_words_ids": [[]],
    "repetition_penalty": 0.0,
    "stop_strings": [1],
}


@pytest.mark.parametrize("name", BROKEN)
def test_an_invalid_setting_names_its_file_and_itself(name: str, tmp_path: Path) -> None:
    folder = gemma2(tmp_path / "model")
    edit_json(folder / GENERATION, lambda found: found.update({name: BROKEN[name]}))
    refused(lambda: pairform.load(folder), GENERATION, name)
