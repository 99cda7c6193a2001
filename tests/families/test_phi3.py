"""Phi-3 as transformers computes it, there and back, and beyond the length at which LongRoPE changes."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import pairform
from pairform.assemblies.families import nearest_family
from tests.broken.damage import edit_json, refused
from tests.families.any_family import SEEDS, check_family
from tests.made_once import made_once
from tests.parity.compare import FLOAT32, batch, error, reference, write

SMALL: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 1.0,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LONGROPE: dict[str, Any] = {
    "max_position_embeddings": 64,
    "original_max_position_embeddings": 10,
    "rope_parameters": {
        "rope_type": "longrope",
        "rope_theta": 100.0,
        "short_factor": [1.0, 1.5, 2.0, 4.0],
        "long_factor": [2.0, 3.0, 5.0, 9.0],
    },
}
"""The lists change at a length that the tests' sequences exceed."""


@made_once
def create(folder: Path, /, kind: str = "ForCausalLM", *, seed: int = 0, **changes: Any) -> Path:
    torch.manual_seed(seed)
    config = transformers.Phi3Config(**{**SMALL, **changes})
    return write(folder, getattr(transformers, f"Phi3{kind}")(config))


def random_config(seed: int) -> dict[str, Any]:
    """LongRoPE on every row, on none, or none; a part of each head rotated; a window or none."""
    rng = random.Random(seed)
    heads, width = rng.choice([2, 4, 6]), rng.choice([8, 16])
    fraction = rng.choice([1.0, 0.5, 0.75])
    pairs = int(width * fraction) // 2
    factors: list[dict[str, Any]] = [{}, {"attention_factor": 1.3}, {"factor": 4.0}]
    longrope = {
        "rope_type": "longrope",
        "short_factor": [rng.uniform(1, 2) for _ in range(pairs)],
        "long_factor": [rng.uniform(1, 9) for _ in range(pairs)],
        **rng.choice(factors),
    }
    scaling = rng.choice([{"rope_type": "default"}, longrope, longrope])
    return {
        "hidden_size": heads * width,
        "intermediate_size": rng.choice([24, 40]),
        "num_hidden_layers": rng.randint(1, 4),
        "num_attention_heads": heads,
        "num_key_value_heads": rng.choice([count for count in range(1, heads + 1) if heads % count == 0]),
        "hidden_act": rng.choice(["silu", "gelu", "relu"]),
        "rms_norm_eps": rng.choice([1e-6, 1e-3]),
        "tie_word_embeddings": rng.random() < 0.5,
        "sliding_window": rng.choice([None, 4]),
        "resid_pdrop": rng.choice([0.0, 0.1]) if fraction != 1 or scaling is longrope else 0.1,
        "max_position_embeddings": 128,
        "original_max_position_embeddings": rng.choice([3, 64]),
        "rope_parameters": {"rope_theta": rng.choice([100.0, 10_000.0]), "partial_rotary_factor": fraction, **scaling},
    }


@pytest.mark.parametrize("seed", SEEDS)
def test_random_models(seed: int, tmp_path: Path) -> None:
    check_family(lambda folder, seed: create(folder, seed=seed, **random_config(seed)), seed, tmp_path, kind="decoder")


@pytest.mark.parametrize("kind", ["Model", "ForSequenceClassification", "ForTokenClassification"])
@torch.no_grad()
def test_other_heads(kind: str, tmp_path: Path) -> None:
    folder = create(tmp_path / "model", kind, num_labels=3, **LONGROPE)
    read = batch(padding="right")
    output = pairform.load(folder)(**read.inputs)
    got = output.last_hidden_state if output.logits is None else output.logits
    real = None if kind == "ForSequenceClassification" else read.real
    assert error(got, reference(folder)(**read.inputs)[0], real) <= FLOAT32
    pairform.save(pairform.load(folder), tmp_path / "back", format="transformers")
    reference(tmp_path / "back", strict=True)


@pytest.mark.parametrize("length", [17, 20])
@torch.no_grad()
def test_text_that_grows_beyond_the_length_of_the_short_factors(length: int, tmp_path: Path) -> None:
    """Then the cached keys are computed again with the long factors, as in transformers."""
    folder = create(tmp_path / "model", **LONGROPE | {"original_max_position_embeddings": length}, tie_word_embeddings=True)
    ours, theirs = pairform.load(folder), reference(folder)
    read = batch()
    options: dict[str, Any] = {"max_new_tokens": 12}
    expected = theirs.generate(**read.inputs, do_sample=False, **options)
    assert torch.equal(ours.generate(**read.inputs, **options), expected)
    assert torch.equal(ours.generate(**read.inputs, use_cache=False, **options), expected)
    beams = ours.generate(**read.inputs, num_beams=3, **options)
    assert torch.equal(beams, ours.generate(**read.inputs, num_beams=3, use_cache=False, **options))


@pytest.mark.usefixtures("graphs_as_traced")
@torch.no_grad()
def test_the_compiled_step_goes_on_beyond_it(tmp_path: Path) -> None:
    ours = pairform.load(create(tmp_path / "model", **LONGROPE | {"original_max_position_embeddings": 17}))
    read = batch(padding="left")
    expected = ours.generate(**read.inputs, max_new_tokens=12)
    assert torch.equal(ours.generate(**read.inputs, max_new_tokens=12, compile=True), expected)


@torch.no_grad()
def test_rows_grow_beyond_it_each_at_its_own_length(tmp_path: Path) -> None:
    """A row does not depend on the rows beside it, nor on its padding."""
    ours = pairform.load(create(tmp_path / "model", **LONGROPE))
    read = batch(padding="left")
    together = ours.generate(**read.inputs, max_new_tokens=12)
    for row in range(3):
        ids = read.ids[row][read.real[row]][None]
        alone = ours.generate(input_ids=ids, max_new_tokens=12)[0, ids.shape[1] :]
        written = together[row, read.ids.shape[1] :]
        assert torch.equal(written[: len(alone)], alone)
        assert (written[len(alone) :] == 0).all()


def test_the_attention_factor_follows_from_the_lengths(tmp_path: Path) -> None:
    spec = pairform.load_spec(create(tmp_path / "model", **LONGROPE))
    scaling = spec.document()["decoder"]["layer"]["branches"]["self_attention"]["position"]["scaling"]
    assert scaling["attention"] == pytest.approx((1 + 0.80617997) ** 0.5)  # ln(64 / 10) / ln(10)


@pytest.mark.parametrize("name", ["su", "yarn"])
def test_older_names_of_longrope(name: str, tmp_path: Path) -> None:
    folder = create(tmp_path / "model", **LONGROPE)
    spec = pairform.load_spec(folder)

    def age(config: dict[str, Any]) -> None:
        parameters = config.pop("rope_parameters")
        theta, _ = parameters.pop("rope_theta"), parameters.pop("rope_type")
        config |= {"rope_theta": theta, "rope_scaling": {**parameters, "type": name}}

    edit_json(folder / "config.json", age)
    assert pairform.load_spec(folder) == spec


def test_what_llama_can_express_is_written_as_llama(tmp_path: Path) -> None:
    ours = pairform.load(create(tmp_path / "model", tie_word_embeddings=True))
    assert nearest_family(ours.spec).model_type == "llama"
    pairform.save(ours, tmp_path / "back", format="transformers")
    read = batch()
    assert error(reference(tmp_path / "back", strict=True)(**read.inputs).logits, ours(**read.inputs).logits) <= FLOAT32


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"short_factor": [1.0]}, "scaling.short"),
        ({"long_factor": None}, "rope_parameters.long_factor"),
        ({"long_factor": [1.0, 1.0, 1.0, -1.0]}, "long_factor"),
        ({"rope_type": "linear", "factor": 2.0}, "rope_parameters.rope_type"),
        ({"partial_rotary_factor": 0.3}, "scaling.short"),
        ({"partial_rotary_factor": 2.0}, "fraction"),
    ],
)
def test_a_broken_configuration_names_its_field(change: dict[str, Any], named: str, tmp_path: Path) -> None:
    folder = create(tmp_path / "model", **LONGROPE)
    edit_json(folder / "config.json", lambda config: config["rope_parameters"].update(change))
    refused(lambda: pairform.load(folder), "config.json", named)


def test_a_fused_tensor_of_another_shape_is_refused(tmp_path: Path) -> None:
    folder = create(tmp_path / "model")
    edit_json(folder / "config.json", lambda config: config.update(num_key_value_heads=4))
    message = refused(lambda: pairform.load(folder), "model.layers.0.self_attn.qkv_proj.weight: found the shape [64, 32]")
    assert (
        "expected [96, 32], as the configuration says: decoder.layers.0.self_attention.block.q_proj.weight [32, 32]" in message
    )
