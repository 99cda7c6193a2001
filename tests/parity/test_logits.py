"""Logits and hidden states equal transformers', over random architectures with wide weights."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

import pairform
from tests.checkpoints import gemma2, t5gemma
from tests.parity.compare import (
    FLOAT32,
    PADDINGS,
    batch,
    check_logits,
    create,
    error,
    inclusive_windows,
    random_gemma2,
    random_t5gemma,
    reference,
)


@pytest.mark.parametrize("seed", range(18))
@torch.no_grad()
def test_random_gemma2(seed: int, tmp_path: Path) -> None:
    folder = create(tmp_path / "model", "Gemma2ForCausalLM", seed=seed, **random_gemma2(seed))
    read = batch(seed, padding=PADDINGS[seed % 3])
    check_logits(pairform.load(folder), reference(folder), read)


@pytest.mark.parametrize("seed", range(27))
@torch.no_grad()
def test_random_t5gemma(seed: int, tmp_path: Path) -> None:
    """With the windows of training against transformers given these, and with its own windows against it unchanged."""
    folder = create(tmp_path / "model", "T5GemmaForConditionalGeneration", seed=seed, **random_t5gemma(seed))
    (reading, writing) = list(product(PADDINGS, PADDINGS))[seed % 9]
    read = batch(seed, length=15, padding=reading, vocabulary=80)
    written = batch(seed + 1, length=12, padding=writing)
    inputs = {**read.inputs, **written.decoder_inputs}

    ours, theirs = pairform.load(folder), reference(folder)
    expected = theirs(**inputs)
    got = ours(**inputs)
    assert error(got.encoder_last_hidden_state, expected.encoder_last_hidden_state, read.real) <= FLOAT32
    assert error(got.logits, expected.logits, written.real) <= FLOAT32

    patched = pairform.load(folder, patch=inclusive_windows(ours.spec))
    theirs.config.encoder.sliding_window += 1
    assert error(patched(**inputs).logits, theirs(**inputs).logits, written.real) <= FLOAT32


@torch.no_grad()
def test_the_encoder_window_is_the_trained_one_by_default(tmp_path: Path) -> None:
    """A difference of one token matters; both readings are there, and they differ."""
    folder = t5gemma(tmp_path / "model")
    inputs = {**batch().inputs, "decoder_input_ids": batch(1).ids}
    ours = pairform.load(folder)
    local = {"branches": {"self_attention": {"mask": {"window": [4, 4]}}}}
    patched = pairform.load(folder, patch={"encoder": {"cycle": [local, {}]}})
    expected = reference(folder, trained_window=False)(**inputs).logits
    assert error(patched(**inputs).logits, expected) <= FLOAT32
    assert error(ours(**inputs).logits, expected) > 100 * FLOAT32


@pytest.mark.parametrize("padding", ["left", "right"])
@torch.no_grad()
def test_without_a_mask_padding_is_masked_in_the_encoder_and_in_cross_attention(padding: str, tmp_path: Path) -> None:
    folder = t5gemma(tmp_path / "model")
    read, written = batch(padding=padding), batch(1)
    ours = pairform.load(folder)
    got = ours(read.ids, decoder_input_ids=written.ids)
    assert torch.equal(got.logits, ours(**read.inputs, decoder_input_ids=written.ids).logits)
    assert error(got.logits, reference(folder)(**read.inputs, decoder_input_ids=written.ids).logits) <= FLOAT32


@torch.no_grad()
def test_without_its_own_mask_a_decoder_masks_nothing(tmp_path: Path) -> None:
    """transformers does the same in generation, with a cache."""
    folder = t5gemma(tmp_path / "model")
    read, written = batch(), batch(1, padding="left")
    inputs = {**read.inputs, "decoder_input_ids": written.ids}
    expected = reference(folder)(**inputs, use_cache=True).logits
    assert error(pairform.load(folder)(**inputs).logits, expected) <= FLOAT32


@pytest.mark.parametrize("padding", PADDINGS)
@torch.no_grad()
def test_bidirectional_gemma2(padding: str | None, tmp_path: Path) -> None:
    """Read and written with both of transformers' flags, of which its masks heed one."""
    ours = pairform.load(gemma2(tmp_path / "model", use_bidirectional_attention=True, is_causal=False))
    read = batch(padding=padding)
    got = ours(**read.inputs).logits
    pairform.save(ours, tmp_path / "saved", format="transformers")
    assert error(got, reference(tmp_path / "saved")(**read.inputs).logits, read.real) <= FLOAT32
    assert torch.equal(got, pairform.load(tmp_path / "saved")(**read.inputs).logits)


@pytest.mark.parametrize(
    ("architecture", "config"),
    [
        ("Gemma2Model", {}),
        ("T5GemmaModel", {"encoder": {"hidden_size": 40, "head_dim": 4}}),
        ("T5GemmaEncoderModel", {"is_encoder_decoder": False}),
    ],
)
@torch.no_grad()
def test_models_without_a_head(architecture: str, config: dict[str, Any], tmp_path: Path) -> None:
    folder = create(tmp_path / "model", architecture, **config)
    read = batch(padding="right")
    inputs = {**read.inputs, **(batch(1).decoder_inputs if architecture == "T5GemmaModel" else {})}
    got, expected = pairform.load(folder)(**inputs), reference(folder)(**inputs)
    assert got.logits is None
    real = None if architecture == "T5GemmaModel" else read.real
    assert error(got.last_hidden_state, expected.last_hidden_state, real) <= FLOAT32


@torch.no_grad()
def test_embeddings_in_place_of_tokens(tmp_path: Path) -> None:
    """T5Gemma scales what it is given, Gemma 2 does not."""
    embeds, other = torch.randn(2, 3, 10, 32)
    one = gemma2(tmp_path / "gemma2")
    assert error(pairform.load(one)(inputs_embeds=embeds).logits, reference(one)(inputs_embeds=embeds).logits) <= FLOAT32
    two = t5gemma(tmp_path / "t5gemma")
    inputs = {"inputs_embeds": embeds, "decoder_inputs_embeds": other}
    assert error(pairform.load(two)(**inputs).logits, reference(two)(**inputs).logits) <= FLOAT32


@torch.no_grad()
def test_positions_of_the_callers_choice(tmp_path: Path) -> None:
    read, written = batch(), batch(1)
    positions = torch.arange(14).flip(0)[None] * 2
    one = gemma2(tmp_path / "gemma2")
    inputs = {**read.inputs, "position_ids": positions}
    assert error(pairform.load(one)(**inputs).logits, reference(one)(**inputs).logits) <= FLOAT32
    two = t5gemma(tmp_path / "t5gemma")
    inputs |= {**written.decoder_inputs, "decoder_position_ids": positions}
    assert error(pairform.load(two)(**inputs).logits, reference(two)(**inputs).logits) <= FLOAT32


@torch.no_grad()
def test_encoder_outputs_given_again(tmp_path: Path) -> None:
    ours = pairform.load(t5gemma(tmp_path / "model"))
    read, written = batch(padding="right"), batch(1)
    first = ours(**read.inputs, decoder_input_ids=written.ids)
    for outputs in (first, first.encoder_last_hidden_state):
        again = ours(attention_mask=read.mask, encoder_outputs=outputs, decoder_input_ids=written.ids)
        assert torch.equal(again.logits, first.logits)
