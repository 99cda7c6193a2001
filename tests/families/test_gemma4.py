"""Gemma 4 beside transformers, there and back: shared keys, keys as values, layer inputs, experts, wide global heads."""

import json
import os
import random
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import pairform
from tests.broken.damage import refused
from tests.families.any_family import TOKENS, check_family
from tests.initialisation.test_vocabulary import trained, with_tokenizer
from tests.parity.compare import batch, error, reference, write

SEEDS = range(int(os.environ.get("PAIRFORM_SEEDS", "8")))
LOCAL, GLOBAL = "sliding_attention", "full_attention"
SMALL: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "global_head_dim": 16,
    "sliding_window": 4,
    "vocab_size_per_layer_input": 96,
    "hidden_size_per_layer_input": 4,
    "layer_types": [LOCAL, LOCAL, GLOBAL] * 2,
}
VISION: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "position_embedding_size": 16,
}
TOWERS: dict[str, Any] = {
    "gemma4": {"vision_config": VISION, "audio_config": None},
    "gemma4_unified": {
        "vision_config": {"mm_embed_dim": 32, "mm_posemb_size": 8, "output_proj_dims": 32},
        "audio_config": {"audio_embed_dim": 16},
    },
}


def random_config(seed: int) -> dict[str, Any]:
    """All features together. Layers share keys only beside layer inputs: without them transformers fails."""
    rng = random.Random(seed)
    depth, heads = rng.randint(2, 7), rng.choice([2, 4])
    types = [*(rng.choice([LOCAL, LOCAL, GLOBAL]) for _ in range(depth - 1)), GLOBAL]
    channels = rng.choice([0, 4, 6])
    most = next(shared for shared in reversed(range(depth)) if not shared or set(types[: depth - shared]) == set(types))
    config = {
        "intermediate_size": rng.choice([24, 40]),
        "num_hidden_layers": depth,
        "layer_types": types,
        "num_attention_heads": heads,
        "num_key_value_heads": rng.choice([1, 2]),
        "num_global_key_value_heads": rng.choice([None, 1, 2]),
        "head_dim": rng.choice([4, 8]),
        "global_head_dim": rng.choice([8, 16]),
        "attention_k_eq_v": rng.random() < 0.5,
        "attention_bias": rng.random() < 0.3,
        "hidden_size_per_layer_input": channels,
        "num_kv_shared_layers": rng.randint(0, most) if channels else 0,
        "use_double_wide_mlp": rng.random() < 0.5,
        "final_logit_softcapping": rng.choice([None, 5.0]),
        "tie_word_embeddings": rng.random() < 0.7,
        "sliding_window": rng.choice([2, 3, 5]),  # with 1, transformers' tokens with its cache are not those without
        "hidden_activation": rng.choice(["gelu_pytorch_tanh", "silu"]),
        "rms_norm_eps": rng.choice([1e-6, 1e-3]),
        "rope_parameters": {
            LOCAL: {"rope_type": "default", "rope_theta": 100.0},
            GLOBAL: {"rope_type": "proportional", "partial_rotary_factor": rng.choice([0.25, 0.5, 1.0]), "rope_theta": 1e4},
        },
    }
    if seed % 4 == 3:
        config |= {"enable_moe_block": True, "num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 16}
    return config


def small(classes: str) -> dict[str, Any]:
    """The fields of a small text model. The 12B has no layer inputs."""
    missing = ("hidden_size_per_layer_input", "vocab_size_per_layer_input") if classes == "Gemma4Unified" else ()
    return {field: value for field, value in {**TOKENS, **SMALL}.items() if field not in missing}


def create(
    folder: Path, *, seed: int = 0, classes: str = "Gemma4", kind: str = "ForCausalLM", spread: float = 0.5, **changes: Any
) -> Path:
    """A small folder of transformers' own writing."""
    torch.manual_seed(seed)
    config = getattr(transformers, f"{classes}TextConfig")(**{**small(classes), "initializer_range": spread, **changes})
    return scaled(write(folder, getattr(transformers, f"{classes}{kind}")(config)), seed)


def beside_towers(folder: Path, model_type: str, **changes: Any) -> Path:
    """A model with towers for pictures and sound. changes: fields of its language model."""
    classes = {"gemma4": "Gemma4", "gemma4_unified": "Gemma4Unified"}[model_type]
    torch.manual_seed(0)
    text = {**small(classes), "initializer_range": 0.5, **changes}
    config = getattr(transformers, f"{classes}Config")(text_config=text, **TOWERS[model_type])
    return scaled(write(folder, getattr(transformers, f"{classes}ForConditionalGeneration")(config)), 0)


def scaled(folder: Path, seed: int) -> Path:
    """The folder with scales of the layers that are not 1."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in tensors.items():
        if name.endswith("layer_scalar"):
            tensor.copy_(torch.rand(1, generator=generator) + 0.5)
    save_file(tensors, file, metadata={"format": "pt"})
    return folder


def sharing(folder: Path, **changes: Any) -> Path:
    return create(folder, num_kv_shared_layers=3, use_double_wide_mlp=True, attention_k_eq_v=True, **changes)


@pytest.mark.parametrize("seed", SEEDS)
def test_random_models(seed: int, tmp_path: Path) -> None:
    config = random_config(seed)
    routed = config.get("enable_moe_block", False)
    check_family(lambda folder, seed: create(folder, seed=seed, **config), seed, tmp_path, kind="decoder", routed=routed)


def test_compiled_steps_beams_and_kernels_agree(tmp_path: Path) -> None:
    model = pairform.load(sharing(tmp_path))
    read = batch(0, padding="left", length=9)
    inputs = {name: read.inputs[name] for name in ("input_ids", "attention_mask")}
    greedy = model.generate(**inputs, max_new_tokens=12)
    assert torch.equal(model.generate(**inputs, max_new_tokens=12, compile=True), greedy)
    beams = model.generate(**inputs, max_new_tokens=8, num_beams=3)
    assert torch.equal(model.generate(**inputs, max_new_tokens=8, num_beams=3, use_cache=False), beams)
    expected = model(**inputs).logits
    for kernel in ("sdpa", "chunked", "eager"):
        model.use_kernel(kernel)
        assert error(model(**inputs).logits, expected, read.real) < 1e-5


def test_packed_rows_and_the_cache_with_shared_keys(tmp_path: Path) -> None:
    model = pairform.load(sharing(tmp_path)).double()
    first, second = torch.randint(3, 96, (1, 9)), torch.randint(3, 96, (1, 7))
    packed = torch.cat((first, second), 1)
    segments = torch.tensor([[0] * 9 + [1] * 7])
    alone = torch.cat((model(first).logits, model(second).logits), 1)
    torch.testing.assert_close(model(packed, segment_ids=segments).logits, alone)
    cache = pairform.Cache()
    parts = [model(part, cache=cache).logits for part in (packed[:, :6], *torch.split(packed[:, 6:], 1, 1))]
    torch.testing.assert_close(torch.cat(parts, 1), model(packed).logits)
    assert {layer for layer, _ in cache.own} == {0, 1, 2}


def test_shared_keys_without_layer_inputs(tmp_path: Path) -> None:
    """transformers slices its layer inputs though there are none, unless all hidden states are asked for."""
    folder = sharing(tmp_path, hidden_size_per_layer_input=0)
    read = batch(1, padding="left")
    ours, theirs = pairform.load(folder), reference(folder)
    assert error(ours(**read.inputs).logits, theirs(**read.inputs, output_hidden_states=True).logits, read.real) < 1e-5
    with pytest.raises(TypeError):
        theirs.generate(**read.inputs, max_new_tokens=2)


def test_every_token_attends_to_both_sides(tmp_path: Path) -> None:
    folder = create(tmp_path, use_bidirectional_attention="all", kind="TextModel", sliding_window=6)
    read = batch(2, padding="left")
    found, expected = pairform.load(folder)(**read.inputs), reference(folder)(**read.inputs)
    assert error(found.last_hidden_state, expected.last_hidden_state, read.real) < 1e-5


def test_keys_of_sharing_layers_in_published_files_are_not_read(tmp_path: Path) -> None:
    folder = sharing(tmp_path)
    expected = pairform.load(folder)(batch(0).ids).logits
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.4.self_attn.k_proj.weight"] = torch.ones(16, 32)
    tensors["model.layers.4.self_attn.k_norm.weight"] = torch.ones(8)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert torch.equal(pairform.load(folder)(batch(0).ids).logits, expected)


@pytest.mark.parametrize("model_type", ["gemma4", "gemma4_unified"])
def test_the_language_model_beside_towers(model_type: str, tmp_path: Path) -> None:
    folder = beside_towers(tmp_path / "whole", model_type)
    read = batch(0)
    with pytest.warns(UserWarning, match=r"not read.* of model\.embed_vision"):
        model = pairform.load(folder)
    assert error(model(read.ids).logits, reference(folder)(read.ids).logits) < 1e-5
    pairform.save(model, tmp_path / "text", format="transformers")
    assert json.loads((tmp_path / "text/config.json").read_text())["model_type"] == "gemma4_text"
    assert error(reference(tmp_path / "text", strict=True)(read.ids).logits, model(read.ids).logits) < 1e-5


def test_the_scale_of_a_layer_is_kept_in_training(tmp_path: Path) -> None:
    model = pairform.load(create(tmp_path))
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    assert frozen == [f"decoder.layers.{layer}.output_scale" for layer in range(6)]


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"num_kv_shared_layers": 6}, "num_kv_shared_layers"),
        ({"num_kv_shared_layers": 4}, "num_kv_shared_layers"),
        ({"is_causal": False}, "is_causal"),
        ({"per_layer_config": {"9": {}}}, "per_layer_config"),
        ({"per_layer_config": {"2": {"intermediate_size": 9}, "5": {"intermediate_size": 9}}}, "per_layer_config"),
        ({"enable_moe_block": True}, "num_experts"),
        ({"rope_parameters": {LOCAL: {"rope_type": "default"}}}, "rope_parameters.full_attention"),
        ({"sliding_window": 0}, "sliding_window"),
    ],
)
def test_configurations_that_cannot_be_read(changes: dict[str, Any], path: str, tmp_path: Path) -> None:
    folder = create(tmp_path)
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(pairform.PairformError, match=path):
        pairform.load_spec(folder)


def test_another_vocabulary_changes_the_table_of_layer_inputs(tmp_path: Path) -> None:
    folder = create(tmp_path / "model")
    before = pairform.load(folder)
    for size in (50, 120):
        model = pairform.resize_vocabulary(pairform.load(folder), size)
        table, old = (each.get_parameter("decoder.layer_inputs.weight") for each in (model, before))
        assert len(table) == size
        assert torch.equal(table[: min(size, 96)], old[:size])
        assert model(torch.tensor([[5, size - 1]])).logits.shape == (1, 2, size)
    with_tokenizer(folder, trained("WordLevel"))
    (tmp_path / "tokens.txt").write_text("encoder\ndecoder\n")
    vocabulary = {"tokens": str(tmp_path / "tokens.txt")}
    report = pairform.convert(encoder=folder, decoder=folder, out=tmp_path / "pair", vocabulary=vocabulary)
    kept = [row for (row,) in report.plan.vocabularies["decoder"].rows]
    table = pairform.load(tmp_path / "pair").get_parameter("decoder.layer_inputs.weight")
    assert torch.equal(table, before.get_parameter("decoder.layer_inputs.weight")[kept])
    chosen = partial(pairform.plan, encoder=folder, decoder=folder, vocabulary=vocabulary, decoder_layers="2,5")
    refused(chosen, "vocabulary", "Convert twice")
