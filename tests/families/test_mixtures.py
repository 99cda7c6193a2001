"""Mixtral and Qwen3 MoE as transformers computes them, there and back, whichever way their files hold the experts."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import pairform
from tests.broken.damage import edit_json, refused
from tests.families.any_family import SEEDS, check_family
from tests.made_once import made_once
from tests.parity.compare import FLOAT32, batch, error, reference, write

CLASSES = {"mixtral": "Mixtral", "qwen3_moe": "Qwen3Moe"}
SMALL: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "initializer_range": 0.5,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


@made_once
def create(folder: Path, /, family: str, kind: str = "ForCausalLM", *, seed: int = 0, **changes: Any) -> Path:
    torch.manual_seed(seed)
    own = {"moe_intermediate_size": 24} if family == "qwen3_moe" else {}
    config = getattr(transformers, f"{CLASSES[family]}Config")(**{**SMALL, **own, **changes})
    model = getattr(transformers, CLASSES[family] + kind)(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".experts." in name or name.endswith("mlp.gate.weight"):
                parameter.normal_(std=0.5)
    return write(folder, model)


def random_config(family: str, seed: int) -> dict[str, Any]:
    rng = random.Random(seed)
    heads, depth, experts = rng.choice([2, 4]), rng.randint(1, 4), rng.randint(2, 6)
    config: dict[str, Any] = {
        "hidden_size": heads * rng.choice([8, 16]),  # transformers' kernel needs multiples of 8
        "intermediate_size": rng.choice([24, 40]),
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "num_key_value_heads": rng.choice([count for count in range(1, heads + 1) if heads % count == 0]),
        "head_dim": rng.choice([4, 8, 16]),
        "hidden_act": rng.choice(["silu", "silu", "gelu"]),
        "rms_norm_eps": rng.choice([1e-6, 1e-3]),
        "tie_word_embeddings": rng.random() < 0.3,
        "num_local_experts": experts,
        "num_experts_per_tok": rng.randint(1, experts),
        "sliding_window": rng.choice([None, 4]),
    }
    dense: list[dict[str, Any]] = [{}, {"decoder_sparse_step": 2}, {"mlp_only_layers": [0]}]
    if family == "qwen3_moe":
        config |= {
            "attention_bias": rng.random() < 0.5,
            "norm_topk_prob": rng.random() < 0.5,
            "use_sliding_window": config["sliding_window"] is not None,
            **rng.choice(dense),
        }
    return config


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("family", CLASSES)
def test_random_models(family: str, seed: int, tmp_path: Path) -> None:
    def folder_of(folder: Path, seed: int) -> Path:
        return create(folder, family, seed=seed, **random_config(family, seed))

    check_family(folder_of, seed, tmp_path, kind="decoder", routed=True)


@pytest.mark.parametrize("kind", ["Model", "ForSequenceClassification", "ForTokenClassification"])
@pytest.mark.parametrize("family", CLASSES)
@torch.no_grad()
def test_other_heads(family: str, kind: str, tmp_path: Path) -> None:
    folder = create(tmp_path / "model", family, kind, num_labels=3)
    read, ours = batch(padding="right"), pairform.load(folder)
    output = ours(**read.inputs)
    got = output.last_hidden_state if output.logits is None else output.logits
    real = None if kind == "ForSequenceClassification" else read.real
    assert error(got, reference(folder)(**read.inputs)[0], real) <= FLOAT32
    pairform.save(ours, tmp_path / "back", format="transformers")
    reference(tmp_path / "back", strict=True)


@pytest.mark.parametrize("family", CLASSES)
def test_experts_in_one_tensor_are_read(family: str, tmp_path: Path) -> None:
    """As transformers holds them in memory, and saves them if asked to."""
    folder = create(tmp_path / "model", family)
    expected = pairform.load(folder).state_dict()
    together = tmp_path / "together"
    reference(folder).save_pretrained(together, save_original_format=False)
    assert "model.layers.1.mlp.experts.gate_up_proj" in load_file(together / "model.safetensors")
    found = pairform.load(together).state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())


@pytest.mark.parametrize("family", CLASSES)
def test_another_number_of_experts_is_refused(family: str, tmp_path: Path) -> None:
    folder, together = create(tmp_path / "model", family), tmp_path / "together"
    reference(folder).save_pretrained(together, save_original_format=False)
    for path in (folder, together):
        edit_json(path / "config.json", lambda config: config.update(num_local_experts=3))
    refused(lambda: pairform.load(folder), "experts.3.", "a tensor that this model does not have")
    refused(lambda: pairform.load(together), "model.layers.0.mlp.experts.down_proj: found the shape [4, ", "expected [3, ")


def test_an_expert_that_is_missing_is_named(tmp_path: Path) -> None:
    folder = create(tmp_path / "model", "mixtral")
    file = folder / "model.safetensors"
    tensors = load_file(file)
    del tensors["model.layers.1.block_sparse_moe.experts.2.w3.weight"]
    save_file(tensors, file, {"format": "pt"})
    refused(lambda: pairform.load(folder), "decoder.layers.1.feed_forward.block.experts.2.up_proj.weight: found no such tensor")


@pytest.mark.parametrize(
    ("family", "field", "value"),
    [
        ("mixtral", "output_router_logits", True),
        ("mixtral", "router_jitter_noise", 0.1),
        ("mixtral", "num_experts_per_tok", 5),
        ("qwen3_moe", "output_router_logits", True),
        ("qwen3_moe", "decoder_sparse_step", 0),
        ("qwen3_moe", "mlp_only_layers", ["x"]),
        ("qwen3_moe", "num_local_experts", 0),
    ],
)
def test_a_broken_configuration_names_its_field(family: str, field: str, value: object, tmp_path: Path) -> None:
    folder = create(tmp_path / "model", family)
    edit_json(folder / "config.json", lambda config: config.update({field: value}))
    refused(lambda: pairform.load(folder), "config.json", {"num_experts_per_tok": "top_k"}.get(field, field))


@pytest.mark.parametrize("patch", [{"balance": 0.01}, {"shared": {"name": "gated", "hidden": 8}}])
def test_what_transformers_cannot_express_is_not_written(patch: dict[str, Any], tmp_path: Path) -> None:
    folder = create(tmp_path / "model", "mixtral")
    spec = pairform.load_spec(folder, {"decoder": {"layer": {"branches": {"feed_forward": patch}}}})
    model = pairform.build(spec, seed=0)
    refused(lambda: pairform.save(model, tmp_path / "back", format="transformers"), "feed_forward", *patch)
