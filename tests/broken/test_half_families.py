"""Folders of transformers' families that hold less, or other weights, than their config.json declares."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

import pairform
from pairform.assemblies.families import FAMILIES
from tests.broken.damage import SINGLE, edit_json, refused

TOKENS = {"vocab_size": 96, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
BERT: dict[str, Any] = {
    **TOKENS,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 20,
    "architectures": ["BertForMaskedLM"],
}
BART: dict[str, Any] = {
    **TOKENS,
    "d_model": 16,
    **{f"{part}_{field}": 2 for part in ("encoder", "decoder") for field in ("layers", "attention_heads")},
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "max_position_embeddings": 20,
    "decoder_start_token_id": 2,
}
PAIR: dict[str, Any] = {
    "encoder": BERT | {"model_type": "bert"},
    "decoder": BERT | {"model_type": "bert", "is_decoder": True, "add_cross_attention": True},
    "decoder_start_token_id": 1,
}
GEMMA4: dict[str, Any] = {
    **{field: value for field, value in BERT.items() if field != "architectures"},
    "num_key_value_heads": 1,
    "head_dim": 8,
    "layer_types": ["sliding_attention", "full_attention"],
    "hidden_size_per_layer_input": 4,
    "vocab_size_per_layer_input": 96,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "encoder-decoder": PAIR,
    "bart": BART,
    "m2m_100": BART,
    "umt5": {**TOKENS, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2},
    "bert": BERT,
    "roberta": BERT | {"architectures": ["RobertaForMaskedLM"]},
    "gpt2": {**TOKENS, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 20},
    "gemma4_text": GEMMA4,
}


def folder_of(family: str, folder: Path) -> Path:
    model = pairform.build(FAMILIES[family].spec(CONFIGS[family]), seed=0)
    pairform.save(model, folder, format="transformers")
    return folder


def without(*words: str) -> Callable[[Path], None]:
    """Drop the tensors whose names hold one of `words`."""

    def change(folder: Path) -> None:
        tensors = load_file(folder / SINGLE)
        kept = {name: tensor for name, tensor in tensors.items() if not any(word in name for word in words)}
        assert len(kept) < len(tensors)
        save_file(kept, folder / SINGLE, {"format": "pt"})

    return change


def declared(**fields: Any) -> Callable[[Path], None]:
    return lambda folder: edit_json(folder / "config.json", lambda config: config.update(fields))


BROKEN: dict[str, tuple[str, Callable[[Path], None], tuple[str, ...]]] = {
    "a pair without its decoder": ("encoder-decoder", without("decoder."), ("decoder.layers: found none", "every stack")),
    "a pair without its encoder": ("encoder-decoder", without("encoder."), ("encoder.layers: found none", "every stack")),
    "BART's encoder alone": ("bart", without("decoder."), ("decoder.layers: found none", "decoder.position.weight")),
    "BART's decoder alone": ("bart", without("encoder."), ("encoder.layers: found none", "encoder.position.weight")),
    "M2M-100's encoder alone": ("m2m_100", without("decoder."), ("decoder.layers: found none",)),
    "UMT5's encoder alone": ("umt5", without("decoder."), ("decoder.layers: found none",)),
    "BERT's embeddings alone": ("bert", without("encoder.layer."), ("encoder.layers: found none",)),
    "BERT without token types": ("bert", without("token_type"), ("encoder.token_types.weight: found no such", "[2, 16]")),
    "too few token types": ("bert", declared(type_vocab_size=3), ("token_type", "[2, 16]", "[3, 16]")),
    "RoBERTa without positions": ("roberta", without("position_emb"), ("encoder.position.weight: found no such", "[20, 16]")),
    "too few positions": ("roberta", declared(max_position_embeddings=30), ("position_embeddings", "[20, 16]", "[30, 16]")),
    "too few layers": ("bert", declared(num_hidden_layers=3), ("encoder.layers.2.self_attention", "no such tensor")),
    "too many layers": ("gpt2", declared(n_layer=1), ("h.1.", "does not have")),
    "a decoder's weights as an encoder's": ("gpt2", declared(model_type="bert", **BERT), ("encoder.layers: found none",)),
    "Gemma 4 without the table of layer inputs": ("gemma4_text", without("per_layer."), ("decoder.layer_inputs.weight",)),
    "Gemma 4 without scales of its layers": ("gemma4_text", without("layer_scalar"), ("decoder.layers.0.output_scale",)),
    "layer inputs that are not declared": (
        "gemma4_text",
        declared(hidden_size_per_layer_input=0),
        ("per_layer", "does not have"),
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_weights_unlike_the_configuration(kind: str, tmp_path: Path) -> None:
    family, change, words = BROKEN[kind]
    folder = folder_of(family, tmp_path / "model")
    pairform.load(folder)
    change(folder)
    refused(lambda: pairform.load(folder), str(folder), *words)


def test_the_first_of_them_says_what_to_do(tmp_path: Path) -> None:
    folder = folder_of("bert", tmp_path / "model")
    without("token_type")(folder)
    refused(lambda: pairform.load(folder), "Correct the configuration, or fetch the folder again")
