"""Conversions for CTranslate2: the same tokens, or a reason."""

import json
import shutil
from pathlib import Path
from typing import Any

import ctranslate2
import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration, UMT5Config, UMT5ForConditionalGeneration

import pairform
from tests.checkpoints import t5gemma, t5gemma2
from tests.tokenizers_small import tokenizer

PLAIN: dict[str, Any] = {
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "query_pre_attn_scalar": 8,
    "sliding_window": 200,
    "max_position_embeddings": 64,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
"""A stack that CTranslate2 computes; published T5Gemma has softcaps."""
T5: dict[str, Any] = {
    "vocab_size": 96,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "num_heads": 4,
    "initializer_factor": 2.0,
    "decoder_start_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 0,
}


def pair(folder: Path, kind: str = "t5gemma", encoder: dict[str, Any] | None = None, **decoder: Any) -> Path:
    """A small pair with a tokenizer; a T5's configuration takes `encoder`."""
    torch.manual_seed(0)
    changes = encoder or {}
    if kind == "t5":
        T5ForConditionalGeneration(T5Config(**T5, **changes)).save_pretrained(folder)
    elif kind == "umt5":
        UMT5ForConditionalGeneration(UMT5Config(**T5, **changes)).save_pretrained(folder)
    else:
        made = {"t5gemma": t5gemma, "t5gemma2": t5gemma2}[kind]
        made(folder, seed=3, encoder=PLAIN | changes, decoder=PLAIN | decoder)
    return tokenizer(folder)


def vocabulary(folder: Path) -> list[str]:
    words: list[str] = json.loads((folder / "shared_vocabulary.json").read_text())
    return words


@pytest.mark.parametrize("kind", ["t5gemma", "t5gemma2", "t5", "umt5"])
@torch.no_grad()
def test_greedy_and_beam_tokens_are_ours(kind: str, tmp_path: Path) -> None:
    source, out = pair(tmp_path / "source", kind), tmp_path / "out"
    told: list[str] = []
    pairform.export(source, out, format="ctranslate2", tell=told.append)
    assert "greedy tokens are equal in 8 of 8 texts" in told[0]
    words, model, translator = vocabulary(out), pairform.load(source), ctranslate2.Translator(str(out))
    ids = torch.randint(8, 90, (4, 12), generator=torch.Generator().manual_seed(5))
    texts = [[words[token] for token in row] for row in ids.tolist()]
    for beams in (1, 4):
        expected = model.generate(ids, torch.ones_like(ids), max_new_tokens=16, num_beams=beams)[:, 1:].tolist()
        found = translator.translate_batch(texts, beam_size=beams, max_decoding_length=16, min_decoding_length=0)
        tokens = [[words.index(token) for token in result.hypotheses[0]] for result in found]
        assert tokens == [[token for token in row if token not in (0, 1)] for row in expected]


def test_int8_is_written_and_its_difference_told(tmp_path: Path) -> None:
    source, out = pair(tmp_path / "source"), tmp_path / "out"
    told: list[str] = []
    size = pairform.export(source, out, format="ctranslate2", quantization="int8", tell=told.append)
    assert [line.partition(":")[0] for line in told[:2]] == ["float32", "int8"]
    assert size < sum(path.stat().st_size for path in source.glob("*.safetensors")) / 2
    assert {path.name for path in out.iterdir()} >= {"model.bin", "tokenizer.json", "provenance.json"}
    pairform.export(source, out, format="ctranslate2", overwrite=True)


@pytest.mark.parametrize(
    ("kind", "encoder", "decoder", "message"),
    [
        ("t5gemma", {"attn_logit_softcapping": 50.0}, {}, r"encoder.*softcap: found 50\.0, expected none"),
        ("t5gemma", {}, {"final_logit_softcapping": 30.0}, r"head\.softcap: found 30\.0, expected none"),
        ("t5gemma", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}, {}, r"theta: found 1000000\.0"),
        ("t5gemma2", {}, {"query_pre_attn_scalar": 12}, r"CTranslate2 ignores query_pre_attn_scalar"),
        ("t5gemma", {"sliding_window": 20}, {}, r"Pass max_length=20 if no text is longer"),
        ("t5gemma2", {"sliding_window": 20}, {}, r"Pass max_length=10 if no text is longer"),
        ("t5gemma2", {}, {"sliding_window": 20}, r"Pass max_length=20 if no text is longer"),
        ("t5gemma", {}, {"tie_word_embeddings": False}, r"head\.tie"),
        ("t5", {"tie_word_embeddings": False}, {}, r"head\.scale"),
        ("t5", {"layer_norm_epsilon": 1e-3}, {}, r"layer\.norm\.eps: found 0\.001"),
    ],
)
def test_what_it_computes_otherwise_is_refused_before(
    kind: str, encoder: dict[str, Any], decoder: dict[str, Any], message: str, tmp_path: Path
) -> None:
    tied = decoder.get("tie_word_embeddings", True)
    source = pair(tmp_path / "source", kind, encoder, **{name: value for name, value in decoder.items() if "tie" not in name})
    if not tied:
        pairform.carry(source, patch={"head": {"tie": None}}, out=tmp_path / "untied", seed=0)
        source = tokenizer(tmp_path / "untied")
    with pytest.raises(pairform.PairformError, match=message):
        pairform.export(source, tmp_path / "out", format="ctranslate2")
    assert not (tmp_path / "out").exists()


def test_windows_are_no_matter_within_the_bound(tmp_path: Path) -> None:
    source = pair(tmp_path / "source", "t5gemma2", {"sliding_window": 20}, sliding_window=12)
    told: list[str] = []
    pairform.export(source, tmp_path / "out", format="ctranslate2", max_length=10, tell=told.append)
    assert any("at most 10 tokens" in line for line in told)


def test_other_logits_withdraw_the_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last guard: here the checks of the spec are switched off."""
    monkeypatch.setattr("pairform.interop.ctranslate2.writing.family_for", lambda spec: "t5gemma")
    source = pair(tmp_path / "source", encoder={"attn_logit_softcapping": 2.0})
    with pytest.raises(pairform.PairformError, match="nothing was written"):
        pairform.export(source, tmp_path / "out", format="ctranslate2")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_tokenizer_with_another_start_token_is_refused(tmp_path: Path) -> None:
    source = pair(tmp_path / "source")
    settings = json.loads((source / "tokenizer_config.json").read_text())
    (source / "tokenizer_config.json").write_text(json.dumps(settings | {"bos_token": "<pad>"}))
    with pytest.raises(pairform.PairformError, match="found the start token 0, expected 2"):
        pairform.export(source, tmp_path / "out", format="ctranslate2")
    shutil.rmtree(source)
