"""Generated text ends where transformers' does: a folder's end tokens are those of its generation settings."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Gemma2ForCausalLM, T5GemmaForConditionalGeneration

import pairform
from tests.broken.damage import SINGLE, edit_json, refused
from tests.checkpoints import gemma2, gemma3, t5gemma, t5gemma2

GENERATION = "generation_config.json"
IDS = torch.tensor([[2, 5, 6, 7], [2, 9, 8, 11]])
NEW = 12
Make = Callable[..., Path]
CLASSES = {gemma2: Gemma2ForCausalLM, t5gemma: T5GemmaForConditionalGeneration}


def theirs(kind: Make, folder: Path) -> list[list[int]]:
    model = CLASSES[kind].from_pretrained(folder)
    written: list[list[int]] = model.generate(
        IDS, attention_mask=torch.ones_like(IDS), max_new_tokens=NEW, do_sample=False
    ).tolist()
    return written


def ours(folder: Path) -> list[list[int]]:
    written: list[list[int]] = pairform.load(folder).generate(IDS, torch.ones_like(IDS), max_new_tokens=NEW).tolist()
    return written


def published(kind: Make, folder: Path, *, settings: bool = True) -> Path:
    """An instruction checkpoint as published: two end tokens in generation_config.json and at the top of config.json, one in
    the configurations inside it."""
    windows = {"layer_types": ["full_attention"] * 4}
    kind(folder, **({"encoder": windows, "decoder": windows} if kind is t5gemma else windows))
    free = CLASSES[kind].from_pretrained(folder).generate(IDS[:1], max_new_tokens=NEW, do_sample=False, eos_token_id=95)
    ends = [1, free[0, -NEW:].tolist()[4]]
    edit_json(folder / "config.json", lambda config: config.update(eos_token_id=ends))
    edit_json(folder / GENERATION, lambda found: found.update(eos_token_id=ends))
    if not settings:
        (folder / GENERATION).unlink()
    return folder


@pytest.mark.parametrize("settings", [True, False])
@pytest.mark.parametrize("kind", [gemma2, t5gemma])
def test_text_ends_where_transformers_ends_it(kind: Make, settings: bool, tmp_path: Path) -> None:
    folder = published(kind, tmp_path / "model", settings=settings)
    written = ours(folder)
    assert written == theirs(kind, folder)
    ends = pairform.load_spec(folder).tokens.ends
    assert len(ends) == 2
    assert ends[1] in written[0][-NEW:-1], "the text ended before the number of tokens was reached"


@pytest.mark.parametrize("make", [gemma3, t5gemma2])
def test_a_list_at_the_top_of_a_configuration_is_read_in_models_with_pictures(make: Make, tmp_path: Path) -> None:
    folder = make(tmp_path / "model")
    (folder / GENERATION).unlink(missing_ok=True)
    edit_json(folder / "config.json", lambda config: config.update(eos_token_id=[1, 17]))
    assert pairform.load_spec(folder).tokens.ends == (1, 17)


@pytest.mark.parametrize("way", ["save", "export", "through ours"])
@pytest.mark.parametrize("kind", [gemma2, t5gemma])
def test_the_end_tokens_stay_with_a_model(kind: Make, way: str, tmp_path: Path) -> None:
    folder, out = published(kind, tmp_path / "model"), tmp_path / "out"
    if way == "save":
        pairform.save(pairform.load(folder), out, format="transformers")
    elif way == "export":
        pairform.export(folder, out)
    else:
        pairform.export(folder, tmp_path / "ours", format="pairform")
        assert ours(tmp_path / "ours") == ours(folder)
        pairform.export(tmp_path / "ours", out)
    assert theirs(kind, out) == ours(out) == ours(folder)
    (out / GENERATION).unlink()
    assert theirs(kind, out) == ours(folder)


def test_a_converted_pair_ends_as_its_decoder(tmp_path: Path) -> None:
    source = published(gemma2, tmp_path / "source")
    edit_json(source / GENERATION, lambda found: found.update(top_k=7))
    patch = {"tokens": {"bos": 3}}
    pairform.convert(encoder=source, decoder=source, out=tmp_path / "ours", patch=patch)
    pairform.convert(encoder=source, decoder=source, out=tmp_path / "theirs", patch=patch, format="transformers")
    ends = list(pairform.load_spec(source).tokens.ends)
    for folder in ("ours", "theirs"):
        tokens = pairform.load_spec(tmp_path / folder).tokens
        assert (list(tokens.ends), tokens.bos) == (ends, 3)
        settings = json.loads((tmp_path / folder / GENERATION).read_text())
        assert (settings["eos_token_id"], settings["bos_token_id"], settings["top_k"]) == (ends, 3, 7)
    assert theirs(t5gemma, tmp_path / "theirs") == ours(tmp_path / "theirs") == ours(tmp_path / "ours")


def test_the_start_token_of_generation_settings_begins_the_text(tmp_path: Path) -> None:
    folder = t5gemma(tmp_path / "model")
    edit_json(folder / GENERATION, lambda found: found.update(decoder_start_token_id=7))
    assert [row[0] for row in ours(folder)] == [7, 7]
    assert ours(folder) == theirs(t5gemma, folder)


def test_a_pad_token_that_ends_text_too_does_not_become_the_models(tmp_path: Path) -> None:
    folder = gemma2(tmp_path / "model", pad_token_id=None)
    edit_json(folder / GENERATION, lambda found: found.update(pad_token_id=5))
    assert pairform.load_spec(folder).tokens.pad == 5
    edit_json(folder / GENERATION, lambda found: found.update(eos_token_id=[1, 5]))
    assert pairform.load_spec(folder).tokens.pad is None
    edit_json(folder / "config.json", lambda config: config.update(pad_token_id=3))
    assert pairform.load_spec(folder).tokens.pad == 3


@pytest.mark.parametrize("name", ["pad_token_id", "bos_token_id", "eos_token_id"])
def test_minus_one_is_no_token(name: str, tmp_path: Path) -> None:
    folder = gemma2(tmp_path / "model")
    (folder / GENERATION).unlink()
    edit_json(folder / "config.json", lambda config: config.update({name: -1}))
    assert getattr(pairform.load_spec(folder).tokens, name.removesuffix("_token_id")) is None


BROKEN: dict[str, tuple[Any, str]] = {
    "a word": ({"eos_token_id": "<eos>"}, "eos_token_id"),
    "beyond the vocabulary": ({"eos_token_id": [1, 96]}, "tokens.eos[1]"),
    "a number of another kind": ({"bos_token_id": 2.5}, "bos_token_id"),
    "no object": ([1], "a JSON object"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_generation_settings_that_cannot_be_are_refused(kind: str, tmp_path: Path) -> None:
    document, words = BROKEN[kind]
    folder = gemma2(tmp_path / "model")
    (folder / GENERATION).write_text(json.dumps(document))
    refused(lambda: pairform.load(folder), GENERATION, words)


def test_an_encoder_alone_has_no_generation_settings(tmp_path: Path) -> None:
    folder = gemma2(tmp_path / "model")
    pairform.extract(pair(tmp_path, folder), tmp_path / "encoder", part="encoder")
    assert (tmp_path / "encoder" / SINGLE).is_file()
    assert not (tmp_path / "encoder" / GENERATION).exists()


def pair(parent: Path, source: Path) -> Path:
    pairform.convert(encoder=source, decoder=source, out=parent / "pair")
    assert (parent / "pair" / GENERATION).is_file()
    return parent / "pair"
