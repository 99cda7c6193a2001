"""Damaged folders of Gemma 3 and T5Gemma 2 are refused with the file's name, and the field's or the tensor's."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import pairform
from pairform.registry import CheckpointError
from tests.broken.damage import SINGLE, edit_header, edit_json, refused
from tests.checkpoints import gemma3, gemma3_text, t5gemma2

FAMILIES = {"gemma3_text": gemma3_text, "gemma3": gemma3, "t5gemma2": t5gemma2}
TOWER = "vision_tower.encoder.layers.1.mlp.fc1.bias"
TENSORS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "gemma3_text": (
        ("model.layers.0.self_attn.q_norm.weight", "decoder.layers.0.self_attention.block.q_norm.weight"),
        ("model.embed_tokens.weight", "decoder.embedding.weight"),
    ),
    "gemma3": (
        (TOWER, "decoder.vision.tower.layers.1.feed_forward.block.up_proj.bias"),
        ("multi_modal_projector.mm_input_projection_weight", "decoder.vision.projector.weight"),
        ("language_model.model.layers.2.self_attn.k_norm.weight", "decoder.layers.2.self_attention.block.k_norm.weight"),
    ),
    "t5gemma2": (
        ("model.encoder.embed_tokens.eoi_embedding", "encoder.embedding.end_of_image"),
        ("model.encoder." + TOWER, "encoder.vision.tower.layers.1.feed_forward.block.up_proj.bias"),
        ("model.decoder.layers.0.self_attn.o_proj.weight", "decoder.layers.0.self_attention.block.o_proj.weight"),
    ),
}
"""A tensor's name in the file and ours."""
LISTED = [(family, *names) for family, tensors in TENSORS.items() for names in tensors]


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("healthy")
    return {family: make(root / family) for family, make in FAMILIES.items()}


def copy(folder: Path, target: Path) -> Path:
    return Path(shutil.copytree(folder, target / folder.name))


def check(folder: Path, *words: str) -> None:
    """Reading and exporting refuse the folder, and nothing is written."""
    with pytest.raises(CheckpointError):
        pairform.load(folder)
    refused(lambda: pairform.load(folder), *words)
    refused(lambda: pairform.export(folder, folder.parent / "out"), *words)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize("family", FAMILIES)
def test_truncated_weights(family: str, healthy: dict[str, Path], tmp_path: Path) -> None:
    folder = copy(healthy[family], tmp_path)
    (folder / SINGLE).write_bytes((folder / SINGLE).read_bytes()[:-100])
    check(folder, SINGLE, "truncated or damaged")


@pytest.mark.parametrize("family", FAMILIES)
def test_pickles_only(family: str, healthy: dict[str, Path], tmp_path: Path) -> None:
    folder = copy(healthy[family], tmp_path)
    (folder / SINGLE).rename(folder / "pytorch_model.bin")
    check(folder, "pickle", "safetensors")


@pytest.mark.parametrize(("family", "theirs", "ours"), LISTED)
def test_a_missing_tensor(family: str, theirs: str, ours: str, healthy: dict[str, Path], tmp_path: Path) -> None:
    folder = copy(healthy[family], tmp_path)
    tensors = load_file(folder / SINGLE)
    tensors.pop(theirs)
    save_file(tensors, folder / SINGLE)
    check(folder, str(folder), ours, "no such tensor")


@pytest.mark.parametrize(("family", "theirs", "ours"), LISTED)
def test_a_wrong_shape(family: str, theirs: str, ours: str, healthy: dict[str, Path], tmp_path: Path) -> None:
    folder = copy(healthy[family], tmp_path)
    save_file({**load_file(folder / SINGLE), theirs: torch.ones(3)}, folder / SINGLE)
    check(folder, SINGLE, theirs, "[3]", "as the configuration says")


@pytest.mark.parametrize(("family", "theirs", "ours"), LISTED)
def test_a_shape_unlike_its_bytes(family: str, theirs: str, ours: str, healthy: dict[str, Path], tmp_path: Path) -> None:
    folder = copy(healthy[family], tmp_path)
    edit_header(folder / SINGLE, lambda header: header[theirs].update(shape=[3]))
    check(folder, SINGLE)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["model.extra.weight", "vision_tower.encoder.layers.9.mlp.fc1.bias"])
def test_an_unknown_tensor(family: str, name: str, healthy: dict[str, Path], tmp_path: Path) -> None:
    folder = copy(healthy[family], tmp_path)
    save_file({**load_file(folder / SINGLE), name: torch.ones(3)}, folder / SINGLE)
    check(folder, SINGLE, name, "does not have")


def test_one_tensor_under_an_old_and_a_new_name(healthy: dict[str, Path], tmp_path: Path) -> None:
    folder = copy(healthy["gemma3"], tmp_path)
    tensors = load_file(folder / SINGLE)
    save_file({**tensors, "model." + TOWER: tensors[TOWER].clone()}, folder / SINGLE)
    check(folder, SINGLE, "decoder.vision.tower.layers.1.feed_forward.block.up_proj.bias a second time")


FLAT = {"rope_type": "default", "rope_theta": 10_000.0}
STACK: dict[str, list[tuple[object, str]]] = {
    "hidden_size": [("x", ""), (None, ""), (0, "")],
    "rope_parameters": [
        ("x", ""),
        (FLAT, ""),
        ({"full_attention": {"rope_type": "longrope"}}, ".full_attention.short_factor"),
        ({"sliding_attention": {"rope_theta": -1}}, ".sliding_attention.rope_theta"),
    ],
    "sliding_window": [("x", ""), (0, ""), (None, ""), (-1, "")],
    "layer_types": [("x", ""), (["full_attention"], ""), (["x"] * 4, "")],
    "sliding_window_pattern": [("x", ""), (0, "")],
    "query_pre_attn_scalar": [("x", ""), (0, "")],
    "hidden_activation": [("tanhshrink", "")],
}
"""Values that a stack's field cannot have, and how the field's path goes on."""
PICTURES: dict[str, list[object]] = {
    "mm_tokens_per_image": ["x", 0, None],
    "image_token_index": ["x", -1, None],
    "boi_token_index": ["x", -1],
    "eoi_token_index": ["x", -1],
    "vision_config": ["x", [1]],
    "vision_config.hidden_size": ["x", 0],
    "vision_config.patch_size": ["x", [4, 4]],
    "vision_config.image_size": ["x", [16, 16]],
    "vision_config.model_type": ["clip_vision_model"],
    "vision_config.hidden_act": ["tanhshrink"],
    "vision_config.layer_norm_eps": ["x", 0],
}
PLACES = {"gemma3_text": {"": ""}, "gemma3": {"text_config.": ""}, "t5gemma2": {"encoder.text_config.": "", "decoder.": ""}}
CONFIGS: list[tuple[str, str, object, str]] = [
    *(
        (family, place + field, value, place + field + rest)
        for family, places in PLACES.items()
        for place in places
        for field, values in STACK.items()
        for value, rest in values
    ),
    *(
        (family, place + field, value, place + field)
        for family, place in (("gemma3", ""), ("t5gemma2", "encoder."))
        for field, values in PICTURES.items()
        for value in values
        if (family, field) != ("t5gemma2", "image_token_index")
    ),
    *(("t5gemma2", "image_token_index", value, "image_token_index") for value in ("x", -1, None)),
    ("gemma3", "text_config", "x", "text_config"),
    ("gemma3", "text_config.use_bidirectional_attention", True, "text_config.use_bidirectional_attention"),
    ("gemma3", "architectures", ["Gemma3ForCausalLM"], "architectures"),
    ("gemma3", "vision_config.patch_size", 5, "patch_size (5) to divide image_size (16)"),
    ("gemma3", "mm_tokens_per_image", 5, "vision.projector.tokens"),
    ("t5gemma2", "encoder", "x", "encoder"),
    ("t5gemma2", "encoder.eoi_token_index", None, "encoder.eoi_token_index"),
    ("t5gemma2", "encoder.mm_tokens_per_image", 5, "encoder.vision.projector.tokens"),
    ("t5gemma2", "decoder.hidden_size", 64, "decoder.hidden_size"),
    ("t5gemma2", "decoder.vocab_size", 97, "decoder.vocab_size"),
    ("t5gemma2", "is_encoder_decoder", False, "t5gemma2_encoder"),
    ("t5gemma2", "tie_word_embeddings", 1, "tie_word_embeddings"),
    ("t5gemma2", "dropout_rate", 2, "dropout_rate"),
]


@pytest.mark.parametrize(("family", "field", "value", "word"), CONFIGS, ids=lambda value: str(value)[:40])
def test_a_field_that_cannot_be(
    family: str, field: str, value: object, word: str, healthy: dict[str, Path], tmp_path: Path
) -> None:
    def edit(config: dict[str, Any]) -> None:
        *parts, last = field.split(".")
        for part in parts:
            config = config[part]
        config[last] = value

    folder = copy(healthy[family], tmp_path)
    edit_json(folder / "config.json", edit)
    check(folder, "config.json", word)
