"""Special tokens of an encoder and a decoder with two tokenizers, and pad tokens that end text."""

from pathlib import Path

import torch

import pairform
from tests.broken.damage import refused
from tests.checkpoints import gemma2
from tests.parity import test_t5
from tests.parity.test_llama_like import create

TARGET = torch.tensor([[2, 7], [2, 8]])
PADDED = torch.tensor([[5, 3, 7, 3, 9], [5, 6, 7, 0, 0]])


def test_a_pair_of_two_tokenizers_masks_the_encoders_padding(tmp_path: Path) -> None:
    gemma2(tmp_path / "encoder", pad_token_id=0)
    gemma2(tmp_path / "decoder", seed=1, pad_token_id=3)
    pairform.convert(
        encoder=tmp_path / "encoder", decoder=tmp_path / "decoder", out=tmp_path / "pair", cross_attention="random"
    )
    pair = pairform.load(tmp_path / "pair")
    assert (pair.spec.tokens.pad, pair.spec.tokens_of("encoder").pad) == (3, 0)
    expected = pair(PADDED, (PADDED != 0).long(), decoder_input_ids=TARGET).logits
    assert pair(PADDED, decoder_input_ids=TARGET).logits.equal(expected)
    pairform.save(pair, tmp_path / "theirs", format="transformers")
    assert pairform.load_spec(tmp_path / "theirs").tokens_of("encoder") == pair.spec.tokens_of("encoder")


def test_tokens_of_its_own_are_for_an_encoder_beside_a_decoder(tmp_path: Path) -> None:
    spec = pairform.load_spec(gemma2(tmp_path / "model"))
    refused(lambda: pairform.patch(spec, {"decoder": {"tokens": {"pad": 0}}}), "decoder.tokens", "tokens of its own")
    pair = pairform.load_spec("t5gemma-2b-2b")
    refused(lambda: pairform.patch(pair, {"encoder": {"tokens": {"pad": 256_000}}}), "encoder.tokens.pad", "256000")


def test_an_end_token_inside_a_prompt_is_no_padding(tmp_path: Path) -> None:
    ids = torch.tensor([[1, 5, 6, 2, 7, 8, 9]])
    model = pairform.load(create(tmp_path / "llama", "llama", pad_token_id=2, eos_token_id=2))
    expected = model.generate(ids, torch.ones_like(ids), max_new_tokens=6)
    assert model.generate(ids, max_new_tokens=6).equal(expected)
    model = pairform.load(test_t5.create(tmp_path / "t5", pad_token_id=1, eos_token_id=1))
    source = torch.tensor([[5, 6, 7, 8, 1]])
    expected = model.generate(source, torch.ones_like(source), max_new_tokens=6)
    assert model.generate(source, max_new_tokens=6).equal(expected)
    assert model.padding is None
