"""Encoder-decoders of decoders: under a causal mask the encoder is its source, and without cross-attention the decoder is."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pytest
import torch
import transformers

import pairform
from tests.families import test_gpt2, test_mixtures, test_phi3
from tests.parity.compare import PADDINGS, Batch, batch, error
from tests.parity.test_conversion import CAUSAL, KEPT

SOURCES: Mapping[str, Callable[..., Path]] = {
    # all rows are longer, since transformers takes the factors of a batch from its longest row
    "phi3": partial(test_phi3.create, **{**test_phi3.LONGROPE, "original_max_position_embeddings": 4}),
    "gpt2": test_gpt2.create,
    "mixtral": partial(test_mixtures.create, family="mixtral", sliding_window=4),
    "qwen3_moe": partial(test_mixtures.create, family="qwen3_moe", mlp_only_layers=[0]),
}
PAIRS = [*((family, family) for family in SOURCES), ("phi3", "gpt2"), ("gpt2", "mixtral"), ("qwen3_moe", "phi3")]


def expected(model: torch.nn.Module, read: Batch) -> torch.Tensor:
    """transformers counts padding on the left of a call without position_ids, which matters to learned positions alone."""
    counted = (read.mask.cumsum(-1) - 1).clamp(min=0)
    made: torch.Tensor = model(**read.inputs, position_ids=counted)[0]
    return made


@pytest.mark.parametrize(("first", "second"), PAIRS)
@torch.no_grad()
def test_a_pair_is_its_sources(first: str, second: str, tmp_path: Path) -> None:
    one, other = SOURCES[first](tmp_path / "encoder"), SOURCES[second](tmp_path / "decoder", seed=1)
    pairform.convert(encoder=one, decoder=other, out=tmp_path / "pair", cross_attention="zero_output")
    assert pairform.verify(tmp_path / "pair").ok
    ours, causal = pairform.load(tmp_path / "pair"), pairform.load(tmp_path / "pair", patch=CAUSAL)
    encoder = transformers.AutoModel.from_pretrained(one).eval()
    decoder = transformers.AutoModelForCausalLM.from_pretrained(other).eval()
    for padding in PADDINGS:
        read, written = batch(padding=padding), batch(1, padding=padding)
        inputs = {**read.inputs, **written.decoder_inputs}
        own = expected(encoder, read)
        assert error(causal(**inputs).encoder_last_hidden_state, own, read.real) <= KEPT
        assert error(ours(**inputs).encoder_last_hidden_state, own, read.real) > 100 * KEPT
        assert error(ours(**inputs).logits, expected(decoder, written), written.real) <= KEPT


@pytest.mark.parametrize("family", SOURCES)
def test_a_pair_trains_and_generates(family: str, tmp_path: Path) -> None:
    source = SOURCES[family](tmp_path / "source")
    pairform.convert(encoder=source, decoder=source, out=tmp_path / "pair")
    model = pairform.load(tmp_path / "pair")
    read = batch(padding="left")
    cached = model.generate(**read.inputs, max_new_tokens=14)
    assert torch.equal(cached, model.generate(**read.inputs, max_new_tokens=14, use_cache=False))
    loss = model.train()(**read.inputs, labels=batch(1).ids).loss
    loss.backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("family", SOURCES)
def test_a_decoder_with_fewer_layers_and_the_stack_alone(family: str, tmp_path: Path) -> None:
    source = SOURCES[family](tmp_path / "source")
    pairform.convert(encoder=source, decoder=source, out=tmp_path / "pair", decoder_layers=[0, 2])
    pairform.extract(tmp_path / "pair", tmp_path / "encoder")
    read = batch()
    whole, alone = pairform.load(tmp_path / "pair"), pairform.load(tmp_path / "encoder")
    found = alone(**read.inputs).last_hidden_state
    assert torch.equal(found, whole(**read.inputs, decoder_input_ids=read.ids).encoder_last_hidden_state)
    assert whole.spec.decoder is not None
    assert whole.spec.decoder.depth == 2
