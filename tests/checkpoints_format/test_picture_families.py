"""Folders of Gemma 3 and T5Gemma 2 of any age: names, configurations, and specs that transformers cannot say."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import pairform
from pairform.assemblies.specs.canonical import differences
from tests.broken.damage import SINGLE, contents, edit_json, refused
from tests.checkpoints import gemma3, gemma3_text, t5gemma2
from tests.parity.pictures import reference, same_bytes


def renamed(folder: Path, target: Path, new_name: Callable[[str], str]) -> Path:
    shutil.copytree(folder, target)
    tensors = load_file(folder / SINGLE)
    save_file({new_name(name): tensor for name, tensor in tensors.items()}, target / SINGLE, {"format": "pt"})
    assert set(load_file(target / SINGLE)) != set(tensors)
    return target


def newest_gemma3(name: str) -> str:
    """As the modules are called."""
    if name == "language_model.lm_head.weight":
        return "lm_head.weight"
    return "model." + name.replace("language_model.model.", "language_model.")


def oldest(name: str) -> str:
    return name.replace("vision_tower.", "vision_tower.vision_model.")


def with_text_model(name: str) -> str:
    return re.sub(r"^(model\.encoder\.)(?=layers|embed|norm)", r"\1text_model.", name)


SPELLINGS: list[tuple[Callable[..., Path], Callable[[str], str]]] = [
    (gemma3, newest_gemma3),
    (gemma3, oldest),
    (gemma3, lambda name: oldest(newest_gemma3(name))),
    (t5gemma2, oldest),
    (t5gemma2, with_text_model),
    (t5gemma2, lambda name: oldest(with_text_model(name))),
]


@pytest.mark.parametrize(("make", "spelling"), SPELLINGS)
@pytest.mark.parametrize("tied", [True, False])
def test_older_and_newer_names(make: Callable[..., Path], spelling: Callable[[str], str], tied: bool, tmp_path: Path) -> None:
    """They are read as one; what is written is what transformers writes today."""
    folder = make(tmp_path / "today", tie_word_embeddings=tied)
    pairform.export(renamed(folder, tmp_path / "other", spelling), tmp_path / "back")
    assert same_bytes(folder, tmp_path / "back")


@pytest.mark.parametrize(
    ("make", "architecture", "spelling"),
    [
        (gemma3, "Gemma3Model", lambda name: name.replace("language_model.model.", "language_model.")),
        (t5gemma2, "T5Gemma2Model", lambda name: "model." + name),
        (gemma3_text, "Gemma3TextModel", lambda name: "model." + name),
    ],
)
def test_names_without_a_head(
    make: Callable[..., Path], architecture: str, spelling: Callable[[str], str], tmp_path: Path
) -> None:
    folder = make(tmp_path / "model", architecture)
    pairform.export(folder, tmp_path / "back")
    assert same_bytes(folder, tmp_path / "back")
    renamed(folder, tmp_path / "other", spelling)
    pairform.export(tmp_path / "other", tmp_path / "again")
    assert same_bytes(folder, tmp_path / "again")


@pytest.mark.parametrize("make", [gemma3, t5gemma2])
def test_a_pooling_head_is_left_behind(make: Callable[..., Path], tmp_path: Path) -> None:
    """These models never look at it; what is written says that there is none, and loads strictly."""
    folder = make(tmp_path / "model", vision={"vision_use_head": True})
    pairform.export(folder, tmp_path / "back")
    kept, had = load_file(tmp_path / "back" / SINGLE), load_file(folder / SINGLE)
    left = set(had) - set(kept)
    assert left == {name for name in had if "vision_tower.head." in name} != set()
    assert all(kept[name].equal(had[name]) for name in kept)
    reference(tmp_path / "back")


def test_tied_tensors_that_are_stored_twice(tmp_path: Path) -> None:
    folder = t5gemma2(tmp_path / "model")
    tensors = load_file(folder / SINGLE)
    twice = {
        "lm_head.out_proj.weight": "model.encoder.embed_tokens.weight",
        "model.decoder.embed_tokens.weight": "model.encoder.embed_tokens.weight",
        "model.decoder.embed_tokens.eoi_embedding": "model.encoder.embed_tokens.eoi_embedding",
    }
    save_file(tensors | {copy: tensors[name].clone() for copy, name in twice.items()}, folder / SINGLE, {"format": "pt"})
    pairform.export(folder, tmp_path / "back")
    assert set(load_file(tmp_path / "back" / SINGLE)) == set(tensors)


@pytest.mark.parametrize("make", [gemma3_text, gemma3, t5gemma2])
@pytest.mark.parametrize("size", ["20KB", "60KB"])
def test_shards_there_and_back(make: Callable[..., Path], size: str, tmp_path: Path) -> None:
    folder = make(tmp_path / "model")
    pairform.export(folder, tmp_path / "shards", max_shard_size=size)
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    reference(tmp_path / "shards")
    pairform.export(tmp_path / "shards", tmp_path / "back")
    assert same_bytes(folder, tmp_path / "back")


def older(config: dict[str, Any]) -> None:
    """As Gemma 3's first files say it: positions by three fields, layers by a period, no tie."""
    for field in ("rope_parameters", "layer_types", "tie_word_embeddings"):
        config.pop(field)
    config |= {"rope_theta": 1e6, "rope_local_base_freq": 1e4, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}
    config["sliding_window_pattern"] = 3


@pytest.mark.parametrize("explicit", [True, False])
def test_older_configurations(explicit: bool, tmp_path: Path) -> None:
    """Period and thetas may be left to defaults."""
    types = ["sliding_attention"] * 2 + ["full_attention", "sliding_attention"]
    folder = gemma3_text(tmp_path / "model", layer_types=types)
    spec = pairform.load_spec(folder)
    edit_json(folder / "config.json", older)
    if not explicit:
        edit_json(folder / "config.json", lambda config: (config.pop("rope_theta"), config.pop("rope_local_base_freq")))
    assert differences(pairform.load_spec(folder), spec) == {}


def test_a_short_configuration_as_on_the_hub(tmp_path: Path) -> None:
    """Gemma 3 4B's: what equals a default is left out, and end tokens stand outside the text's part."""
    (tmp_path / "config.json").write_text(
        json.dumps(
            {
                "architectures": ["Gemma3ForConditionalGeneration"],
                "boi_token_index": 255999,
                "eoi_token_index": 256000,
                "eos_token_id": [1, 106],
                "image_token_index": 262144,
                "mm_tokens_per_image": 256,
                "model_type": "gemma3",
                "text_config": {
                    "hidden_size": 2560,
                    "intermediate_size": 10240,
                    "model_type": "gemma3_text",
                    "num_hidden_layers": 34,
                    "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
                    "sliding_window": 1024,
                },
                "vision_config": {
                    "hidden_size": 1152,
                    "image_size": 896,
                    "intermediate_size": 4304,
                    "model_type": "siglip_vision_model",
                    "num_attention_heads": 16,
                    "num_hidden_layers": 27,
                    "patch_size": 14,
                    "vision_use_head": False,
                },
            }
        )
    )
    spec = pairform.load_spec(tmp_path)
    assert spec.tokens.ends == (1, 106)
    document = spec.document()["decoder"]
    assert document["cycle"][:5] == [{}] * 5
    assert document["cycle"][5] == {
        "branches": {
            "self_attention": {
                "position": {"name": "rope", "theta": 1000000.0, "scaling": {"name": "linear", "factor": 8.0}},
                "mask": {"window": None},
            }
        }
    }
    assert document["layer"]["branches"]["self_attention"]["mask"]["window"] == [1023, 1023]
    model = pairform.build(spec, device="meta")
    own = sum(tensor.numel() for name, tensor in model.named_parameters() if ".vision." not in name)
    assert own == 3_880_263_168
    tower = sum(tensor.numel() for name, tensor in model.named_parameters() if ".vision.tower." in name)
    assert tower == 416_866_032


LOCAL = {"branches": {"self_attention": {"position": {"scaling": {"name": "linear", "factor": 2.0}}}}}
UNSAYABLE: dict[str, tuple[Callable[..., Path], dict[str, Any], str]] = {
    "no pictures": (t5gemma2, {"encoder": {"vision": None}}, "encoder.vision"),
    "separate keys": (t5gemma2, {"bridge": {"name": "separate_keys"}}, "bridge"),
    "a bridge": (t5gemma2, {"bridge": {"name": "linear"}}, "bridge"),
    "a projection of its own": (t5gemma2, {"head": {"tie": None}}, "head.tie"),
    "two ids for an end of image": (t5gemma2, {"encoder": {"vision": {"end_token": 7}}}, "encoder.embedding.end_of_image"),
    "dropout in one stack": (t5gemma2, {"decoder": {"dropout": 0.5}}, "decoder.dropout"),
    "another tower": (gemma3, {"decoder": {"vision": {"tower": {"layer": {"placement": "post"}}}}}, "vision.tower"),
    "a tower with a window": (
        gemma3,
        {"decoder": {"vision": {"tower": {"layer": {"branches": {"self_attention": {"mask": {"window": [1, 1]}}}}}}}},
        "decoder.vision.tower.layers[0].branches.self_attention.mask.window",
    ),
    "both ways with pictures": (
        gemma3,
        {"decoder": {"layer": {"branches": {"self_attention": {"mask": {"causal": False}}}}}},
        "decoder.layers[0].branches.self_attention.mask.causal",
    ),
    "one local layer of its own": (
        gemma3_text,
        {"decoder": {"overrides": [{"layers": [1], "patch": LOCAL}]}},
        "decoder.layers[1].branches.self_attention.position",
    ),
    "no norms of queries and keys": (
        gemma3_text,
        {"decoder": {"layer": {"branches": {"self_attention": {"qk_norm": None}}}}},
        "qk_norm",
    ),
    "token classification": (gemma3_text, {"head": {"name": "token_classification"}}, "head.name"),
}


@pytest.mark.parametrize("kind", UNSAYABLE)
def test_what_transformers_cannot_say_is_refused(kind: str, tmp_path: Path) -> None:
    make, patch, where = UNSAYABLE[kind]
    spec = pairform.load_spec(pairform.load_spec(make(tmp_path / "model")), patch)
    model = pairform.build(spec, seed=0)
    message = refused(lambda: pairform.save(model, tmp_path / "out", format="transformers"), where)
    assert "SpecError" not in message
    assert contents(tmp_path) == ["model", *(f"model/{name}" for name in contents(tmp_path / "model"))]


def test_what_changes_no_number_is_no_difference(tmp_path: Path) -> None:
    spec = pairform.load_spec(t5gemma2(tmp_path / "model"))
    patch = {"encoder": {"vision": {"frozen": False}}, "head": {"tie": "decoder"}}
    same = pairform.load_spec(spec, patch)
    pairform.save(pairform.build(same, dtype=torch.bfloat16, seed=0), tmp_path / "out", format="transformers")
    assert differences(pairform.load_spec(tmp_path / "out"), same) == {}


def test_a_bound_on_scores_is_ignored_as_in_transformers(tmp_path: Path) -> None:
    """transformers stores it and does not apply it."""
    spec = pairform.load_spec(gemma3_text(tmp_path / "model", attn_logit_softcapping=20.0))
    assert spec.document()["decoder"]["layer"]["branches"]["self_attention"].get("softcap") is None


def test_an_encoder_alone_with_another_end_of_image_is_not_written(tmp_path: Path) -> None:
    reference(t5gemma2(tmp_path / "whole")).get_encoder().save_pretrained(tmp_path / "model")
    assert pairform.load_spec(tmp_path / "model").document()["encoder"]["embedding"]["end_of_image"] == 5
    refused(lambda: pairform.export(tmp_path / "model", tmp_path / "out"), "encoder.embedding.end_of_image", "256000")
