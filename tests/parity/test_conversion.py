"""What conversion keeps: each stack is still its source, transformers loads what is written, and formats lose nothing."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor

import pairform
from tests.parity.compare import FLOAT32, PADDINGS, batch, create, error, reference

KEPT = 1e-5
"""Largest difference between a stack and its source over the source's largest value."""
PAIRS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "balanced": ({}, {}),
    "unequal": ({"hidden_size": 48, "num_attention_heads": 6, "num_hidden_layers": 3, "sliding_window": 6}, {"head_dim": 4}),
    "one head": ({"num_key_value_heads": 1}, {"num_key_value_heads": 4, "intermediate_size": 20}),
    "biased, without bounds": (
        {"attention_bias": True, "attn_logit_softcapping": None},
        {"attention_bias": True, "attn_logit_softcapping": None, "final_logit_softcapping": None},
    ),
    "own head": ({}, {"tie_word_embeddings": False}),
    "other vocabulary": ({"vocab_size": 112}, {}),
}
"""Changes to the encoder's and the decoder's source."""
CAUSAL = {"encoder": {"layer": {"branches": {"self_attention": {"mask": {"causal": True}}}}}}
FORMATS: tuple[Any, ...] = ("pairform", "transformers")


@pytest.fixture(params=PAIRS)
def sources(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    encoder, decoder = PAIRS[request.param]
    return {
        "encoder": create(tmp_path / "encoder", "Gemma2ForCausalLM", seed=1, **encoder),
        "decoder": create(tmp_path / "decoder", "Gemma2ForCausalLM", seed=2, **decoder),
    }


@torch.no_grad()
def test_the_encoder_under_a_causal_mask_is_its_source(sources: dict[str, Any], tmp_path: Path) -> None:
    """In either format: `test_both_formats_hold_the_same_model`."""
    pairform.convert(**sources, out=tmp_path / "pair")
    ours = pairform.load(tmp_path / "pair", patch=CAUSAL)
    source = transformers.Gemma2Model.from_pretrained(sources["encoder"])
    for padding in PADDINGS:
        read = batch(padding=padding)
        got = ours(**read.inputs, decoder_input_ids=read.ids[:, :1]).encoder_last_hidden_state
        assert error(got, source(**read.inputs).last_hidden_state, read.real) <= KEPT


@pytest.mark.parametrize("format", FORMATS)
@torch.no_grad()
def test_a_decoder_with_silent_cross_attention_is_its_source(sources: dict[str, Any], format: Any, tmp_path: Path) -> None:
    pairform.convert(**sources, out=tmp_path / "pair", format=format, cross_attention="zero_output")
    models = [pairform.load(tmp_path / "pair")]
    if format == "transformers":
        models.append(reference(tmp_path / "pair"))
    for padding in PADDINGS:
        read, written = batch(), batch(1, padding=padding)
        expected = reference(sources["decoder"])(**written.inputs).logits
        for model in models:
            assert error(model(**read.inputs, **written.decoder_inputs).logits, expected, written.real) <= KEPT


@pytest.mark.parametrize("mode", ["auto", "random"])
@torch.no_grad()
def test_transformers_loads_a_pair_strictly_and_computes_the_same(sources: dict[str, Any], mode: str, tmp_path: Path) -> None:
    pairform.convert(**sources, out=tmp_path / "pair", format="transformers", cross_attention=mode)
    inputs = {**batch(padding="right").inputs, "decoder_input_ids": batch(1).ids}
    ours, theirs = pairform.load(tmp_path / "pair"), reference(tmp_path / "pair", strict=True)
    assert error(ours(**inputs).logits, theirs(**inputs).logits) <= FLOAT32
    read = batch(padding="left").inputs
    written = theirs.generate(**read, max_new_tokens=16, do_sample=False)
    assert torch.equal(ours.generate(**read, max_new_tokens=16), written)


@torch.no_grad()
def test_both_formats_hold_the_same_model(sources: dict[str, Any], tmp_path: Path) -> None:
    inputs = {**batch(padding="right").inputs, "decoder_input_ids": batch(1).ids}
    logits = []
    for format in FORMATS:
        pairform.convert(**sources, out=tmp_path / format, format=format)
        logits.append(pairform.load(tmp_path / format)(**inputs).logits)
    assert torch.equal(*logits)


def stored(folder: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors = load_file(file)
        assert not found.keys() & tensors.keys()
        found |= tensors
    return found


EVERY_KIND: list[tuple[str, dict[str, Any]]] = [
    ("Gemma2ForCausalLM", {}),
    ("Gemma2ForCausalLM", {"tie_word_embeddings": False}),
    ("Gemma2ForSequenceClassification", {"num_labels": 3}),
    ("Gemma2ForTokenClassification", {"num_labels": 3}),
    ("Gemma2Model", {}),
    ("T5GemmaForConditionalGeneration", {}),
    ("T5GemmaForConditionalGeneration", {"tie_word_embeddings": False}),
    (
        "T5GemmaForConditionalGeneration",
        {"encoder": {"hidden_size": 48, "vocab_size": 112}, "decoder": {"num_hidden_layers": 3}},
    ),
    ("T5GemmaForSequenceClassification", {"num_labels": 1}),
    ("T5GemmaForSequenceClassification", {"num_labels": 3, "is_encoder_decoder": False}),
    ("T5GemmaForTokenClassification", {"num_labels": 3}),
    ("T5GemmaForTokenClassification", {"num_labels": 3, "is_encoder_decoder": False}),
    ("T5GemmaModel", {}),
    ("T5GemmaEncoderModel", {"is_encoder_decoder": False}),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("architecture", "config"), EVERY_KIND)
def test_there_and_back(architecture: str, config: dict[str, Any], dtype: torch.dtype, tmp_path: Path) -> None:
    """transformers' folder, read, written as ours, read, written as transformers': not a byte of the weights differs.

    The configuration is the same in what it computes: equal weights give equal answers, bit by bit.
    """
    first = create(tmp_path / "first", architecture, dtype=dtype, **config)
    pairform.save(pairform.load(first), tmp_path / "ours")
    pairform.save(pairform.load(tmp_path / "ours"), tmp_path / "back", format="transformers")
    assert (tmp_path / "back/model.safetensors").read_bytes() == (first / "model.safetensors").read_bytes()
    inputs = batch(padding="right").inputs
    if architecture in ("T5GemmaForConditionalGeneration", "T5GemmaModel"):
        inputs["decoder_input_ids"] = batch(1).ids
    with torch.no_grad():
        before, after = (reference(folder, strict=True)(**inputs)[0] for folder in (first, tmp_path / "back"))
    assert torch.equal(before, after)


@pytest.mark.parametrize(("architecture", "config"), EVERY_KIND)
def test_there_and_back_in_shards(architecture: str, config: dict[str, Any], tmp_path: Path) -> None:
    first = create(tmp_path / "first", architecture, shard="20KB", **config)
    pairform.save(pairform.load(first), tmp_path / "ours", max_shard_size="30KB")
    pairform.save(pairform.load(tmp_path / "ours"), tmp_path / "back", format="transformers", max_shard_size="10KB")
    reference(tmp_path / "back", strict=True)
    before, after = stored(first), stored(tmp_path / "back")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    counts = [len(list((tmp_path / name).glob("*.safetensors"))) for name in ("first", "ours", "back")]
    assert min(counts) > 1


@pytest.mark.parametrize("format", FORMATS)
def test_a_tied_projection_is_stored_once(format: Any, tmp_path: Path) -> None:
    for architecture in ("Gemma2ForCausalLM", "T5GemmaForConditionalGeneration"):
        tied, own = (tmp_path / f"{architecture}-{tie}" for tie in ("tied", "own"))
        for folder, tie in ((tied, True), (own, False)):
            made = create(folder / "first", architecture, tie_word_embeddings=tie)
            pairform.save(pairform.load(made), folder / "saved", format=format)
        extra = stored(own / "saved").keys() - stored(tied / "saved").keys()
        assert len(extra) == 1
        assert "head" in extra.pop()


def test_tied_weights_stay_tied_in_transformers(tmp_path: Path) -> None:
    made = create(tmp_path / "source", "Gemma2ForCausalLM")
    pairform.convert(encoder=made, decoder=made, out=tmp_path / "pair", format="transformers")
    theirs = reference(tmp_path / "pair")
    assert theirs.lm_head.out_proj.weight is theirs.model.decoder.embed_tokens.weight


def test_every_pair_of_formats_gives_the_same_plan(tmp_path: Path) -> None:
    """A source in our format initialises as one in transformers'."""
    theirs = create(tmp_path / "theirs", "Gemma2ForCausalLM")
    pairform.save(pairform.load(theirs), tmp_path / "ours")
    made = []
    for index, (encoder, decoder) in enumerate(itertools.product((theirs, tmp_path / "ours"), repeat=2)):
        pairform.convert(encoder=encoder, decoder=decoder, out=tmp_path / str(index), seed=3)
        made.append((tmp_path / str(index) / "model.safetensors").read_bytes())
    assert made.count(made[0]) == len(made)
