"""Hidden states and attention weights that a caller asks for are transformers', and asking changes nothing else."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import pairform
from tests.parity.compare import FLOAT32, batch, create, error, reference

ASKED = {"output_hidden_states": True, "output_attentions": True}


def check_outputs(ours: Any, theirs: Any, fields: tuple[str, ...]) -> None:
    for field in fields:
        mine: tuple[Tensor, ...] = getattr(ours, field)
        expected: tuple[Tensor, ...] = getattr(theirs, field)
        assert len(mine) == len(expected), field
        for got, wanted in zip(mine, expected, strict=True):
            assert error(got, wanted) <= FLOAT32, field


@pytest.mark.parametrize("softcap", [None, 50.0])
@torch.no_grad()
def test_gemma2(softcap: float | None, tmp_path: Path) -> None:
    folder = create(tmp_path / "model", "Gemma2ForCausalLM", attn_logit_softcapping=softcap)
    read = batch(length=10)
    got, expected = pairform.load(folder)(**read.inputs, **ASKED), reference(folder)(**read.inputs, **ASKED)
    check_outputs(got, expected, ("hidden_states", "attentions"))


@pytest.mark.parametrize("softcap", [None, 50.0])
@torch.no_grad()
def test_t5gemma(softcap: float | None, tmp_path: Path) -> None:
    """Stacks of unequal depth, width and heads."""
    encoder = {"num_hidden_layers": 3, "hidden_size": 48, "num_attention_heads": 6, "attn_logit_softcapping": softcap}
    decoder = {"attn_logit_softcapping": softcap}
    folder = create(tmp_path / "model", "T5GemmaForConditionalGeneration", encoder=encoder, decoder=decoder)
    inputs = {**batch(length=12).inputs, "decoder_input_ids": batch(1, length=9).ids}
    got, expected = pairform.load(folder)(**inputs, **ASKED), reference(folder)(**inputs, **ASKED)
    states = ("encoder_hidden_states", "encoder_attentions", "decoder_hidden_states", "decoder_attentions", "cross_attentions")
    check_outputs(got, expected, states)
    assert error(got.encoder_last_hidden_state, expected.encoder_last_hidden_state) <= FLOAT32
    assert torch.equal(got.decoder_hidden_states[-1], got.last_hidden_state)


@torch.no_grad()
def test_encoder_alone(tmp_path: Path) -> None:
    folder = create(tmp_path / "model", "T5GemmaEncoderModel", is_encoder_decoder=False)
    read = batch(length=10)
    got, expected = pairform.load(folder)(**read.inputs, **ASKED), reference(folder)(**read.inputs, **ASKED)
    check_outputs(got, expected, ("hidden_states", "attentions"))


@pytest.mark.parametrize("padding", ["left", "right"])
@torch.no_grad()
def test_padding_gets_no_attention(padding: str, tmp_path: Path) -> None:
    folder = create(tmp_path / "model", "T5GemmaForConditionalGeneration")
    read = batch(padding=padding)
    got = pairform.load(folder)(**read.inputs, decoder_input_ids=batch(1).ids, **ASKED)
    assert got.encoder_attentions is not None
    assert got.cross_attentions is not None
    for row, real in enumerate(read.real):
        encoder = [weights[row, :, real] for weights in got.encoder_attentions]
        for weights in (*encoder, *(weights[row] for weights in got.cross_attentions)):
            assert not weights[..., ~real].any()
            torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))


@pytest.mark.parametrize("architecture", ["Gemma2ForCausalLM", "T5GemmaForConditionalGeneration"])
@torch.no_grad()
def test_asking_changes_no_logits(architecture: str, tmp_path: Path) -> None:
    ours = pairform.load(create(tmp_path / "model", architecture))
    inputs = {**batch(padding="right").inputs, "labels": batch().ids}
    assert torch.equal(ours(**inputs).logits, ours(**inputs, **ASKED).logits)
    assert ours(**inputs).attentions is None
    assert ours(**inputs).hidden_states is None
