"""Decoders that are Llama but for a few options, as transformers computes them, there and back."""

import random
from pathlib import Path
from typing import Any

import pytest

from tests.families.any_family import SEEDS, Case, check_family, written
from tests.made_once import made_once

CLASSES = {"gemma": "Gemma", "olmo2": "Olmo2", "olmo3": "Olmo3", "smollm3": "SmolLM3", "granite": "Granite"}
SMALL: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
WINDOW = 4
"""Shorter than the tests' sequences."""
KINDS = ("sliding_attention", "full_attention")


@made_once
def create(folder: Path, /, family: str, kind: str = "ForCausalLM", *, seed: int = 0, **changes: Any) -> Path:
    """A small folder of transformers' own writing."""
    return written(folder, Case(CLASSES[family], {**SMALL, **changes}, kind), seed)


def random_config(family: str, seed: int) -> dict[str, Any]:
    """GQA or not, tied or own heads, biases, scaled positions, and what the family has of its own."""
    rng = random.Random(seed)
    heads, depth, width = rng.choice([2, 4, 6]), rng.randint(1, 5), rng.choice([4, 8, 16])
    theta = rng.choice([100.0, 10_000.0])
    scaling: dict[str, Any] = rng.choice([{"rope_type": "default"}, {"rope_type": "linear", "factor": 4.0}])
    config: dict[str, Any] = {
        "hidden_size": heads * width,
        "intermediate_size": rng.choice([24, 40]),
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "num_key_value_heads": rng.choice([count for count in range(1, heads + 1) if heads % count == 0]),
        "rms_norm_eps": rng.choice([1e-6, 1e-3]),
        "tie_word_embeddings": rng.random() < 0.5,
        "attention_bias": rng.random() < 0.5,
        "rope_parameters": {"rope_theta": theta} | scaling,
    }
    if family == "gemma":
        config |= {"head_dim": rng.choice([4, 8]), "hidden_act": rng.choice(["gelu", "gelu_pytorch_tanh", "silu"])}
    else:
        config["hidden_act"] = rng.choice(["silu", "silu", "gelu", "relu"])
    if family in ("smollm3", "granite"):
        config["mlp_bias"] = rng.random() < 0.5
    if family == "smollm3":
        config["no_rope_layers"] = rng.choice([None, [rng.randint(0, 1) for _ in range(depth)]])
        if rng.random() < 0.5:
            types = rng.choice([None, [rng.choice(KINDS) for _ in range(depth)]])
            config |= {"use_sliding_window": True, "sliding_window": WINDOW, "layer_types": types}
    if family == "olmo3":
        config |= {"sliding_window": WINDOW, "layer_types": rng.choice([None, [rng.choice(KINDS) for _ in range(depth)]])}
        config["rope_parameters"] = {"sliding_attention": {"rope_type": "default", "rope_theta": theta}} | rng.choice(
            [{}, {"full_attention": {"rope_theta": 1000.0} | scaling}]
        )
    if family == "granite":
        config |= {
            "embedding_multiplier": rng.choice([1.0, 12.0, 0.3]),
            "logits_scaling": rng.choice([1.0, 8.0, 3.3, 49.0]),
            "residual_multiplier": rng.choice([1.0, 0.22]),
            "attention_multiplier": rng.choice([1.0, 0.015625, width**-0.5]),
        }
    return config


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("family", CLASSES)
def test_random_models(family: str, seed: int, tmp_path: Path) -> None:
    def folder(path: Path, seed: int) -> Path:
        return create(path, family, seed=seed, **random_config(family, seed))

    check_family(folder, seed, tmp_path, kind="decoder")


HEADS = {
    "gemma": ("Model", "ForSequenceClassification", "ForTokenClassification"),
    "olmo2": ("Model", "ForSequenceClassification"),
    "olmo3": ("Model", "ForSequenceClassification"),
    "smollm3": ("Model", "ForSequenceClassification", "ForTokenClassification"),
    "granite": ("Model",),
}


@pytest.mark.parametrize(("family", "kind"), [(family, kind) for family, kinds in HEADS.items() for kind in kinds])
def test_other_heads(family: str, kind: str, tmp_path: Path) -> None:
    def folder(path: Path, seed: int) -> Path:
        changes: dict[str, Any] = {"attention_multiplier": 0.2} if family == "granite" else {}
        return create(path, family, kind, num_labels=3, **changes)

    check_family(folder, 2, tmp_path, kind="decoder")


LOCAL: dict[str, Any] = {"no_rope_layers": [1, 1], "use_sliding_window": True, "sliding_window": WINDOW}
UNUSUAL: dict[str, tuple[str, dict[str, Any]]] = {
    "windows and biases, and RoPE in every layer": ("smollm3", LOCAL | {"layer_types": [KINDS[0]] * 2, "attention_bias": True}),
    "windows and biases of the feed-forward layers": ("smollm3", LOCAL | {"layer_types": [KINDS[0]] * 2, "mlp_bias": True}),
    "windows in some layers, and RoPE in every layer": ("smollm3", LOCAL | {"layer_types": [*KINDS]}),
    "no factor": ("granite", {"attention_multiplier": 8**-0.5}),
}
"""Configurations near those of other families."""


@pytest.mark.parametrize("kind", UNUSUAL)
def test_configurations_near_other_families(kind: str, tmp_path: Path) -> None:
    family, changes = UNUSUAL[kind]

    def folder(path: Path, seed: int) -> Path:
        return create(path, family, **changes, num_hidden_layers=2)

    check_family(folder, 1, tmp_path, kind="decoder")
