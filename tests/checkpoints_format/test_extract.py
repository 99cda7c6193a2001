"""A stack cut out of a model works alone and computes the same."""

from pathlib import Path
from typing import Any

import pytest
import torch

import pairform
from pairform.assemblies.specs.tokens import TokenSpec
from tests.broken.damage import contents, refused
from tests.checkpoints import gemma2, gemma3_text
from tests.initialisation.sources import tensors
from tests.merged.pairs import pair
from tests.parity.compare import FLOAT32, batch, error


@pytest.fixture(params=["own", "tied", "cross"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Models whose encoder has an embedding of its own, or shares it with the decoder."""
    target = tmp_path / "whole"
    if request.param == "cross":
        source = gemma2(tmp_path / "gemma")
        pairform.convert(encoder=source, decoder=source, out=target)
    else:
        pairform.save(pairform.build(pair(tie_embeddings=request.param == "tied"), seed=0), target)
    return target


@torch.no_grad()
def test_an_encoder_alone_computes_the_same(folder: Path, tmp_path: Path) -> None:
    written = pairform.extract(folder, tmp_path / "encoder", part="encoder")
    whole, alone = pairform.load(folder), pairform.load(tmp_path / "encoder")
    assert (alone.spec.assembly, alone.spec.head.name, alone.decoder) == ("encoder_only", "none", None)
    read = batch(padding="left", vocabulary=90)
    expected = whole(**read.inputs, decoder_input_ids=read.ids).encoder_last_hidden_state
    found = alone(**read.inputs).last_hidden_state
    torch.testing.assert_close(found[read.real], expected[read.real], rtol=1e-5, atol=1e-5)
    assert written == sum(tensor.nbytes for tensor in tensors(tmp_path / "encoder").values())
    assert pairform.verify(tmp_path / "encoder").ok


@torch.no_grad()
def test_a_decoder_alone_computes_as_without_source_tokens(folder: Path, tmp_path: Path) -> None:
    pairform.extract(folder, tmp_path / "decoder", part="decoder")
    whole, alone = pairform.load(folder), pairform.load(tmp_path / "decoder")
    assert (alone.spec.assembly, alone.spec.head.name, alone.encoder) == ("decoder_only", "lm", None)
    used = {branch.name for layer in alone.spec.last.layers for branch in layer.branches.values()}
    assert not used & {"cross_attention", "merged_attention"}
    for name, parameter in whole.named_parameters():
        if "cross_attention.block.o_proj" in name:
            parameter.zero_()
    read = batch(padding="left", vocabulary=90)
    nothing = torch.zeros_like(read.mask)  # which silences merged attention's part of the source
    expected = whole(read.ids, nothing, **read.decoder_inputs).logits
    found = alone(**read.inputs).logits
    torch.testing.assert_close(found[read.real], expected[read.real], rtol=1e-5, atol=1e-5)
    assert pairform.verify(tmp_path / "decoder").ok


def test_the_decoder_of_a_silent_pair_is_its_source_for_transformers(tmp_path: Path) -> None:
    import transformers

    source = gemma2(tmp_path / "gemma")
    pairform.convert(encoder=source, decoder=source, out=tmp_path / "pair", cross_attention="zero_output")
    pairform.extract(tmp_path / "pair", tmp_path / "decoder", part="decoder", format="transformers")
    assert tensors(tmp_path / "decoder").keys() == tensors(source).keys()
    assert all(value.equal(tensors(source)[name]) for name, value in tensors(tmp_path / "decoder").items())
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "decoder")
    assert type(theirs).__name__ == "Gemma2ForCausalLM"


def test_a_decoder_with_nothing_but_cross_attention_cannot_stand_alone(tmp_path: Path) -> None:
    alone = {"cycle": [], "layer": {"branches": {"self_attention": None, "feed_forward": None}}}
    spec = pairform.patch(pairform.load_spec(pair("separate")), {"decoder": alone})
    pairform.save(pairform.build(spec, seed=0), tmp_path / "whole")
    before = contents(tmp_path)
    refused(lambda: pairform.extract(tmp_path / "whole", tmp_path / "decoder", part="decoder"), "cannot be used alone")
    assert contents(tmp_path) == before


def test_a_part_that_is_not_there(tmp_path: Path) -> None:
    source = gemma2(tmp_path / "gemma")
    refused(lambda: pairform.extract(source, tmp_path / "out", part="encoder"), "part", "decoder")
    wrong: Any = "head"
    refused(lambda: pairform.extract(source, tmp_path / "out", part=wrong), "part", "'head'")
    refused(lambda: pairform.extract(tmp_path / "nothing", tmp_path / "out"), "nothing")
    assert not (tmp_path / "out").exists()


def test_an_encoder_comes_with_its_own_tokenizer(tmp_path: Path) -> None:
    folder = tmp_path / "whole"
    pairform.save(pairform.build(pair(), seed=0), folder)
    for place, name in ((folder, "decoder's"), (folder / "encoder_tokenizer", "encoder's")):
        place.mkdir(exist_ok=True)
        (place / "tokenizer.json").write_text(name)
    pairform.extract(folder, tmp_path / "encoder")
    assert (tmp_path / "encoder" / "tokenizer.json").read_text() == "encoder's"


def test_an_encoder_with_tokens_of_its_own_takes_them_along(tmp_path: Path) -> None:
    tokens = {"pad": 3, "eos": 4, "bos": 5}
    spec = pairform.patch(pairform.load_spec(pair()), {"encoder": {"tokens": tokens}})
    pairform.save(pairform.build(spec, seed=0), tmp_path / "whole")
    pairform.extract(tmp_path / "whole", tmp_path / "encoder")
    alone = pairform.load(tmp_path / "encoder").spec
    assert alone.tokens == TokenSpec.read(tokens)
    assert alone.encoder is not None
    assert alone.encoder.tokens is None


def test_an_encoder_for_transformers(tmp_path: Path) -> None:
    """As `T5GemmaEncoderModel`, with the tokenizer's files beside it."""
    import transformers

    source = gemma2(tmp_path / "gemma")
    (source / "tokenizer_config.json").write_text("{}")
    pairform.convert(encoder=source, decoder=source, out=tmp_path / "pair")
    pairform.extract(tmp_path / "pair", tmp_path / "encoder", format="transformers")
    theirs, info = transformers.T5GemmaEncoderModel.from_pretrained(tmp_path / "encoder", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert theirs.config.is_encoder_decoder is False
    assert (tmp_path / "encoder" / "tokenizer_config.json").is_file()


@torch.no_grad()
def test_an_encoder_without_a_class_of_its_own_is_a_bidirectional_model(tmp_path: Path) -> None:
    import transformers

    sources: dict[str, Any] = {"encoder": gemma3_text(tmp_path / "source"), "decoder": gemma2(tmp_path / "decoder")}
    pairform.convert(**sources, out=tmp_path / "pair")
    pairform.extract(tmp_path / "pair", tmp_path / "encoder", format="transformers")
    theirs, info = transformers.AutoModel.from_pretrained(tmp_path / "encoder", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert type(theirs).__name__ == "Gemma3TextModel"
    read = batch()
    expected = pairform.load(tmp_path / "pair")(**read.inputs, decoder_input_ids=read.ids[:, :1]).encoder_last_hidden_state
    assert error(theirs(**read.inputs).last_hidden_state, expected) <= FLOAT32
