"""EmbeddingGemma 2: each token's projection in transformers, averaged and normalised, is our embedding of a text."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import EmbeddingGemma2Config, EmbeddingGemma2Model, EmbeddingGemma2TextConfig, EmbeddingGemma2TextModel

import pairform
from tests.broken.damage import edit_json, refused
from tests.checkpoints import gemma2
from tests.families.any_family import EQUAL, ROUNDING, SEEDS
from tests.parity.compare import PADDINGS, batch, error
from tests.parity.pictures import same_bytes

FEW: dict[str, Any] = {"vocab_size": 112, "hidden_size": 16, "num_attention_heads": 4}


def written(
    folder: Path, seed: int, kind: type[Any] = EmbeddingGemma2TextModel, *, depth: int | None = None, **changes: Any
) -> Path:
    """A folder of random sizes and weights, with windows shorter than the batch, but for `changes`."""
    draw = random.Random(seed)
    sizes: dict[str, Any] = {
        "intermediate_size": 24,
        "num_hidden_layers": depth or draw.choice([1, 4, 7]),
        "num_key_value_heads": draw.choice([1, 2, 4]),
        "head_dim": draw.choice([4, 8]),
        "global_head_dim": draw.choice([8, 12]),
        "num_global_key_value_heads": draw.choice([1, 2]),
        "sliding_window": draw.choice([1, 2, 4]),
        "sliding_window_pattern": draw.choice([1, 2, 3]),
        "hidden_size_per_layer_input": draw.choice([3, 6]),
        "embedding_dim": draw.choice([10, 16, 24]),
        "attention_bias": draw.random() < 0.5,
        "hidden_activation": draw.choice(["gelu_pytorch_tanh", "silu"]),
        **FEW,
    }
    config = EmbeddingGemma2TextConfig(**{**sizes, **changes})
    torch.manual_seed(seed)
    model = kind(config if kind is EmbeddingGemma2TextModel else EmbeddingGemma2Config(text_config=config))
    for tensor in model.state_dict().values():
        tensor.normal_(1.0 if tensor.ndim == 1 else 0.0, 0.5)
    model.save_pretrained(folder)
    return folder


def embedded(hidden: Tensor, mask: Tensor) -> Tensor:
    """As sentence-transformers' modules after the model."""
    weights = mask[..., None].to(hidden.dtype)
    return functional.normalize((hidden * weights).sum(1) / weights.sum(1), dim=-1)


@pytest.mark.parametrize("seed", SEEDS)
@torch.no_grad()
def test_random_configurations(seed: int, tmp_path: Path) -> None:
    folder = written(tmp_path / "theirs", seed)
    read = batch(seed, padding=PADDINGS[seed % 3])
    found, theirs = pairform.load(folder), EmbeddingGemma2TextModel.from_pretrained(folder)
    expected = embedded(theirs(**read.inputs).last_hidden_state, read.mask)
    assert error(found(**read.inputs).logits, expected) <= EQUAL
    pairform.save(found, tmp_path / "back", format="transformers")
    assert same_bytes(folder, tmp_path / "back")
    _, notes = EmbeddingGemma2TextModel.from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not any(notes.values())
    # in bfloat16, no further from float32 than transformers itself
    rounded = embedded(theirs.bfloat16()(**read.inputs).last_hidden_state.float(), read.mask)
    ours = pairform.load(folder, dtype=torch.bfloat16)(**read.inputs).logits
    assert error(ours.float(), expected) <= ROUNDING * error(rounded, expected)


@torch.no_grad()
def test_the_text_encoder_of_a_folder_with_towers(tmp_path: Path) -> None:
    folder = written(tmp_path / "whole", 1, EmbeddingGemma2Model)
    read = batch(padding="right")
    expected = EmbeddingGemma2Model.from_pretrained(folder)(**read.inputs).last_hidden_state
    ours = pairform.load(folder)
    assert error(ours(**read.inputs).logits, embedded(expected, read.mask)) <= EQUAL
    pairform.save(ours, tmp_path / "text", format="transformers")
    text = EmbeddingGemma2TextModel.from_pretrained(tmp_path / "text")(**read.inputs).last_hidden_state
    assert error(text, expected, read.real) == 0


@torch.no_grad()
def test_as_the_source_of_an_encoder(tmp_path: Path) -> None:
    folder, decoder = written(tmp_path / "encoder", 1), gemma2(tmp_path / "decoder")
    pairform.convert(encoder=folder, decoder=decoder, out=tmp_path / "pair")
    ours, alone = pairform.load(tmp_path / "pair"), pairform.load(folder)
    read = batch(padding="right")
    found = ours(**read.inputs, decoder_input_ids=read.ids).encoder_last_hidden_state
    assert error(found, alone(**read.inputs).last_hidden_state, read.real) <= EQUAL
    assert ours.spec.stacks["encoder"].layers == alone.spec.last.layers


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"per_layer_config": {"0": {"hidden_size": 3}}}, ("per_layer_config.0", "hidden_size", "head_dim")),
        ({"per_layer_config": {"99": {}}}, ("per_layer_config", "99", "from 0 to")),
        ({"per_layer_config": {"٣": {}}}, ("per_layer_config", "from 0 to")),
        ({"layer_types": ["full_attention"]}, ("layer_types", "7 of")),
        ({"architectures": ["EmbeddingGemma2ForCausalLM"]}, ("architectures", "EmbeddingGemma2TextModel")),
    ],
)
def test_what_cannot_be_read_is_refused(fields: dict[str, Any], words: tuple[str, ...], tmp_path: Path) -> None:
    folder = written(tmp_path / "theirs", 4, depth=7)
    assert pairform.load_spec(folder).last.depth == 7
    edit_json(folder / "config.json", lambda config: config.update(fields))
    refused(lambda: pairform.load(folder), *words)


def test_another_pooling_is_not_written(tmp_path: Path) -> None:
    ours = pairform.load(written(tmp_path / "theirs", 1), patch={"head": {"pooling": "first"}})
    refused(lambda: pairform.save(ours, tmp_path / "back", format="transformers"), "head.pooling", "'first'")
