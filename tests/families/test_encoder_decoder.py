"""Folders of transformers' EncoderDecoderModel, there and back."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

import pairform
from pairform.assemblies.specs.canonical import differences
from tests.broken.damage import edit_json, refused
from tests.families.any_family import EQUAL, SEEDS
from tests.families.test_bert import CLASSES, SMALL, random_config
from tests.made_once import made_once
from tests.parity.compare import batch, error, reference, write

SAME = {"hidden_size": 32, "vocab_size": 96}
GPT2: dict[str, Any] = {"vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 40, "initializer_range": 0.5}
TOKENS = {name: SMALL[name] for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
PAIRS = [("bert", "bert"), ("bert", "gpt2"), ("roberta", "roberta"), ("xlm-roberta", "gpt2"), ("bert", "roberta")]
UNUSED = "encoder.pooler."
"""transformers builds it and never reads it."""


def small(family: str, **changes: Any) -> Any:
    """The configuration of one side."""
    if family == "gpt2":
        return transformers.GPT2Config(**{**GPT2, **TOKENS, **changes})
    return getattr(transformers, CLASSES[family] + "Config")(**{**SMALL, **changes})


@made_once
def create(
    folder: Path, /, first: str = "bert", second: str = "bert", *, seed: int = 0, encoder: Any = None, **decoder: Any
) -> Path:
    torch.manual_seed(seed)
    own, other = small(first, **(encoder or {})), small(second, is_decoder=True, add_cross_attention=True, **decoder)
    tokens = {**TOKENS, "pad_token_id": other.pad_token_id, "decoder_start_token_id": 1}
    config = transformers.EncoderDecoderConfig(encoder=own.to_dict(), decoder=other.to_dict(), **tokens)
    return write(folder, transformers.EncoderDecoderModel(config))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("first", "second"), PAIRS)
@torch.no_grad()
def test_random_configurations(first: str, second: str, seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    settings = {name: value for name, value in random_config(seed + 1).items() if name != "num_labels"}
    settings["tie_word_embeddings"] = rng.random() < 0.6
    if second == "gpt2":
        width = settings["hidden_size"]
        settings = {"n_embd": width, "n_head": settings["num_attention_heads"], "tie_word_embeddings": rng.random() < 0.6}
    settings["vocab_size"] = rng.choice([96, 101])
    own = random_config(seed)
    own.pop("num_labels")
    settings.pop("max_position_embeddings", None)
    if rng.random() < 0.5:  # one width, no projection between the stacks
        own |= {"hidden_size": settings.get("hidden_size", settings.get("n_embd")), "num_attention_heads": 1}
    folder = create(tmp_path / "model", first, second, seed=seed, encoder=own, **settings)
    read, written = batch(seed, padding=(None, "right")[seed % 2]), batch(seed + 1, length=9)
    inputs = {**read.inputs, "decoder_input_ids": written.ids}
    ours, theirs = pairform.load(folder), reference(folder, trained_window=False)
    expected = theirs(**inputs).logits
    exact = reference(folder, trained_window=False).double()(**inputs).logits
    assert error(ours(**inputs).logits, expected) <= max(EQUAL, 4 * error(expected, exact))
    tokens = theirs.generate(**read.inputs, max_new_tokens=12, do_sample=False)
    for use_cache in (True, False):
        assert torch.equal(ours.generate(**read.inputs, max_new_tokens=12, use_cache=use_cache), tokens)
    pairform.save(ours, tmp_path / "back", format="transformers")
    before, after = (load_file(path / "model.safetensors") for path in (folder, tmp_path / "back"))
    assert before.keys() == after.keys()
    unread = {name for name in before if name.startswith(UNUSED) or name.endswith((".predictions.bias", "lm_head.bias"))}
    assert all(torch.equal(before[name], after[name]) for name in before.keys() - unread)
    assert differences(pairform.load_spec(tmp_path / "back"), ours.spec) == {}
    again = reference(tmp_path / "back", trained_window=False, strict=True)
    assert torch.equal(again(**inputs).logits, expected)


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_training(first: str, second: str, tmp_path: Path) -> None:
    folder = create(tmp_path / "model", first, second)
    # float32 rounds gradients by up to 2e-5 in both libraries
    ours = pairform.load(folder, dtype=torch.float64)
    theirs = reference(folder, trained_window=False).double()
    read, labels = batch(padding="right"), batch(1, length=9).ids
    labels[0, 5:] = -100
    found, expected = (model(**read.inputs, labels=labels) for model in (ours, theirs))
    torch.testing.assert_close(found.loss, expected.loss)
    found.loss.backward()
    expected.loss.backward()
    theirs_of = dict(theirs.named_parameters())
    for ours_name, name in {
        "encoder.embedding.weight": "encoder.embeddings.word_embeddings.weight",
        "encoder.token_types.weight": "encoder.embeddings.token_type_embeddings.weight",
    }.items():
        gradient = theirs_of[name].grad
        assert gradient is not None
        assert error(ours.get_parameter(ours_name).grad, gradient) <= EQUAL


def test_sides_with_padding_of_their_own(tmp_path: Path) -> None:
    folder = create(tmp_path / "model", "roberta", "gpt2", encoder={"pad_token_id": 3})
    spec = pairform.load_spec(folder)
    assert (spec.tokens_of("encoder").pad, spec.tokens.pad) == (3, 0)
    read = batch(padding="right")
    ids = read.ids.masked_fill(read.ids == 3, 4).masked_fill(~read.real, 3)
    ours = pairform.load(folder)
    expected = reference(folder, trained_window=False)(input_ids=ids, attention_mask=read.mask, decoder_input_ids=ids).logits
    assert error(ours(ids, decoder_input_ids=ids).logits, expected) <= EQUAL


def changed(part: str, **fields: Any) -> Any:
    return lambda config: config[part].update(fields)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (changed("encoder", model_type="deberta"), "encoder.model_type: found 'deberta', which is not read: its attention"),
        (changed("encoder", model_type="llama"), "encoder.model_type: found 'llama', expected one of bert, roberta"),
        (changed("decoder", model_type="llama"), "decoder.model_type: found 'llama'"),
        (changed("decoder", model_type=None), "decoder.model_type: found nothing"),
        (changed("decoder", is_decoder=False), "decoder.is_decoder: found false, expected true"),
        (changed("decoder", add_cross_attention=False), "decoder.add_cross_attention: found false"),
        (changed("encoder", is_decoder=True), "encoder.is_decoder: found true, expected false"),
        (changed("decoder", cross_attention_hidden_size=20), "decoder.cross_attention_hidden_size: found 20"),
        (changed("decoder", is_causal=True), "decoder.is_causal: found True, expected nothing"),
        (changed("encoder", is_causal=True), "encoder.is_causal: found True, expected false"),
        (changed("decoder", hidden_act="nothing"), "hidden_act: found 'nothing'"),
        (changed("encoder", position_embedding_type="relative_key"), "encoder.position_embedding_type"),
        (lambda config: config.pop("encoder"), "encoder"),
        (lambda config: config.update(decoder=[1]), "decoder"),
        (lambda config: config.update(architectures=["VisionEncoderDecoderModel"]), "VisionEncoderDecoderModel"),
    ],
)
def test_what_is_refused(change: Any, found: str, tmp_path: Path) -> None:
    folder = create(tmp_path / "model")
    edit_json(folder / "config.json", change)
    refused(lambda: pairform.load(folder), found)
