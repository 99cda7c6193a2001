"""Llama, Mistral, Qwen2 and Qwen3 as transformers computes them, there and back, and as encoder-decoders."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import pairform
from pairform.assemblies.families import FAMILIES
from pairform.assemblies.specs.canonical import differences
from tests.broken.damage import edit_json, refused
from tests.families.any_family import SEEDS, check_family
from tests.made_once import made_once
from tests.parity.compare import FLOAT32, PADDINGS, batch, error, reference, write
from tests.parity.pictures import same_bytes
from tests.parity.test_conversion import CAUSAL, KEPT

CLASSES = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}
SMALL: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 1.0,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
WINDOW = 4
"""Shorter than the tests' sequences."""
WINDOWED: dict[str, dict[str, Any]] = {
    "mistral": {"sliding_window": WINDOW},
    "qwen2": {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1},
    "qwen3": {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1},
}
UNLIKE: dict[str, Any] = {"hidden_size": 48, "num_attention_heads": 6, "num_key_value_heads": 3, "num_hidden_layers": 2}
"""What makes a stack unlike `SMALL`."""


SCALINGS: dict[str, dict[str, Any]] = {
    "linear": {"rope_type": "linear", "factor": 8.0},
    "dynamic": {"rope_type": "dynamic", "factor": 2.0},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
    "yarn in full": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 16,
        "beta_fast": 4.0,
        "beta_slow": 0.5,
        "attention_factor": 1.5,
        "truncate": False,
    },
    "yarn with weights": {"rope_type": "yarn", "factor": 4.0, "mscale": 1.0, "mscale_all_dim": 0.5},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "original_max_position_embeddings": 16,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
    },
}

LONGROPE = {"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [1.0, 2.0, 2.0, 3.0, 4.0, 6.0, 7.0, 8.0]}
"""For heads of 16 channels."""
UNSCALED = {"layer": {"branches": {"self_attention": {"position": {"scaling": None}}}}}


@made_once
def create(folder: Path, /, family: str, kind: str = "ForCausalLM", *, seed: int = 0, **changes: Any) -> Path:
    """A small folder of transformers' own writing."""
    torch.manual_seed(seed)
    config = getattr(transformers, f"{CLASSES[family]}Config")(**{**SMALL, **changes})
    return write(folder, getattr(transformers, CLASSES[family] + kind)(config))


def random_config(family: str, seed: int) -> dict[str, Any]:
    """GQA or not, any head_dim, tied or own heads, biases, windows on all, some or no layers, scaled positions."""
    rng = random.Random(seed)
    heads, depth = rng.choice([2, 4, 6]), rng.randint(1, 4)
    theta = rng.choice([100.0, 10_000.0, 1_000_000.0])
    config: dict[str, Any] = {
        "hidden_size": heads * rng.choice([6, 8]),
        "intermediate_size": rng.choice([24, 40]),
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "num_key_value_heads": rng.choice([count for count in range(1, heads + 1) if heads % count == 0]),
        "head_dim": rng.choice([4, 8, 16]),
        "hidden_act": rng.choice(["silu", "silu", "gelu", "relu"]),
        "rms_norm_eps": rng.choice([1e-6, 1e-3]),
        "tie_word_embeddings": rng.random() < 0.5,
        "rope_parameters": {"rope_type": "default", "rope_theta": theta} | rng.choice([{}, *SCALINGS.values()]),
    }
    if family in ("llama", "qwen3"):
        config["attention_bias"] = rng.random() < 0.5
    if family == "llama":
        config["mlp_bias"] = rng.random() < 0.5
    if family == "mistral":
        config["sliding_window"] = rng.choice([None, WINDOW])
    if family in ("qwen2", "qwen3") and rng.random() < 0.7:
        kinds = rng.choice([None, [rng.choice(["sliding_attention", "full_attention"]) for _ in range(depth)]])
        config |= WINDOWED[family] | {"max_window_layers": rng.randint(0, depth), "layer_types": kinds}
    return config


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("family", CLASSES)
def test_random_models(family: str, seed: int, tmp_path: Path) -> None:
    def folder(path: Path, seed: int) -> Path:
        return create(path, family, seed=seed, **random_config(family, seed))

    check_family(folder, seed, tmp_path, kind="decoder")


@pytest.mark.parametrize("scaling", [*SCALINGS, "longrope"])
@torch.no_grad()
def test_scaled_positions(scaling: str, tmp_path: Path) -> None:
    """On texts longer than the model's length, where `dynamic` begins."""
    changes: dict[str, Any] = {
        "rope_parameters": {"rope_theta": 10_000.0, **{**SCALINGS, "longrope": LONGROPE}[scaling]},
        "max_position_embeddings": 8,
        "head_dim": 16,
    }
    folder = create(tmp_path / "model", "llama", **changes)
    read, ours = batch(padding="right"), pairform.load(folder)
    expected = reference(folder)(**read.inputs).logits
    assert error(ours(**read.inputs).logits, expected, read.real) <= FLOAT32
    plain = pairform.load(folder, patch={"decoder": UNSCALED})
    assert error(plain(**read.inputs).logits, expected, read.real) > 100 * FLOAT32
    pairform.save(ours, tmp_path / "back", format="transformers")
    assert torch.equal(reference(tmp_path / "back")(**read.inputs).logits, expected)


@pytest.mark.parametrize("kind", ["Model", "ForSequenceClassification", "ForTokenClassification"])
@pytest.mark.parametrize("family", CLASSES)
@torch.no_grad()
def test_other_heads(family: str, kind: str, tmp_path: Path) -> None:
    folder = create(tmp_path / "model", family, kind, num_labels=3)
    read = batch(padding="right")
    ours = pairform.load(folder)
    expected = reference(folder)(**read.inputs)[0]
    answer = ours(**read.inputs)
    got = answer.last_hidden_state if answer.logits is None else answer.logits
    assert error(got, expected, None if kind == "ForSequenceClassification" else read.real) <= FLOAT32
    pairform.save(ours, tmp_path / "back", format="transformers")
    assert same_bytes(folder, tmp_path / "back")
    reference(tmp_path / "back", strict=True)


PAIRS: dict[str, tuple[tuple[str, dict[str, Any]], tuple[str, dict[str, Any]]]] = {
    "llama": (("llama", {}), ("llama", {})),
    "mistral": (("mistral", WINDOWED["mistral"]), ("mistral", WINDOWED["mistral"])),
    "qwen2": (("qwen2", WINDOWED["qwen2"]), ("qwen2", WINDOWED["qwen2"])),
    "qwen3, unequal": (("qwen3", UNLIKE), ("qwen3", {"head_dim": 16, "tie_word_embeddings": True})),
    "of two families": (("qwen3", UNLIKE), ("llama", {"vocab_size": 80})),
}


@pytest.mark.parametrize("kinds", PAIRS)
@torch.no_grad()
def test_a_pair_is_its_sources(kinds: str, tmp_path: Path) -> None:
    """The encoder under a causal mask, and the decoder with a cross-attention of zeros, beside transformers' models."""
    folders: dict[str, Any] = {
        part: create(tmp_path / part, family, seed=seed, **changes)
        for seed, (part, (family, changes)) in enumerate(zip(("encoder", "decoder"), PAIRS[kinds], strict=True))
    }
    pairform.convert(**folders, out=tmp_path / "pair", cross_attention="zero_output")
    ours, causal = pairform.load(tmp_path / "pair"), pairform.load(tmp_path / "pair", patch=CAUSAL)
    assert "cross_attention" in ours.spec.last.layers[0].branches
    encoder = transformers.AutoModel.from_pretrained(folders["encoder"])
    decoder = transformers.AutoModelForCausalLM.from_pretrained(folders["decoder"])
    for padding in PADDINGS:
        read, written = batch(padding=padding, vocabulary=80), batch(1, padding=padding, vocabulary=80)
        inputs = {**read.inputs, **written.decoder_inputs}
        expected = encoder(**read.inputs).last_hidden_state
        assert error(causal(**inputs).encoder_last_hidden_state, expected, read.real) <= KEPT
        assert error(ours(**inputs).encoder_last_hidden_state, expected, read.real) > 100 * KEPT
        assert error(ours(**inputs).logits, decoder(**written.inputs).logits, written.real) <= KEPT


def test_cross_attention_of_equal_sources_is_a_copy(tmp_path: Path) -> None:
    """Biases on queries, keys and values alone stay so."""
    source = create(tmp_path / "model", "qwen2")
    pairform.convert(encoder=source, decoder=source, out=tmp_path / "pair")
    weights = dict(pairform.load(tmp_path / "pair").named_parameters())
    own = "decoder.layers.0.self_attention.block."
    copied = {name.removeprefix(own) for name in weights if name.startswith(own)}
    assert "q_proj.bias" in copied
    assert "o_proj.bias" not in copied
    for name in copied:
        assert torch.equal(weights[own + name], weights[f"decoder.layers.0.cross_attention.block.{name}"])


SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size", "vocab_size")
PUBLISHED: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    "llama-3.2-1b": (
        "llama",
        (2048, 16, 32, 8, 8192, 128_256),
        {
            "head_dim": 64,
            "max_position_embeddings": 131_072,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": True,
            "bos_token_id": 128_000,
            "eos_token_id": 128_001,
            "rope_theta": 500_000.0,
            "rope_scaling": {
                "rope_type": "llama3",
                "factor": 32.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192,
            },
        },
    ),
    "mistral-7b": (
        "mistral",
        (4096, 32, 32, 8, 14_336, 32_000),
        {"max_position_embeddings": 32_768, "rms_norm_eps": 1e-5, "rope_theta": 10_000.0, "sliding_window": 4096},
    ),
    "qwen2.5-0.5b": (
        "qwen2",
        (896, 24, 14, 2, 4864, 151_936),
        {"tie_word_embeddings": True, "rope_theta": 1e6, "bos_token_id": 151_643, "eos_token_id": 151_643},
    ),
    "qwen3-0.6b": (
        "qwen3",
        (1024, 28, 16, 8, 3072, 151_936),
        {
            "tie_word_embeddings": True,
            "max_position_embeddings": 40_960,
            "rope_theta": 1e6,
            "bos_token_id": 151_643,
            "eos_token_id": 151_645,
        },
    ),
}
"""The family, the sizes and the other fields of published configurations."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_preset_is_what_transformers_builds_of_the_published_config(name: str) -> None:
    family, sizes, fields = PUBLISHED[name]
    config = getattr(transformers, f"{CLASSES[family]}Config")(**dict(zip(SIZES, sizes, strict=True)), **fields)
    assert differences(FAMILIES[family].spec(json.loads(config.to_json_string())), pairform.load_spec(name)) == {}
    with torch.device("meta"):
        theirs = getattr(transformers, f"{CLASSES[family]}ForCausalLM")(config)
    ours = pairform.build(name, device="meta")
    assert sum(map(torch.numel, ours.parameters())) == sum(map(torch.numel, theirs.parameters()))


@torch.no_grad()
def test_a_bidirectional_decoder(tmp_path: Path) -> None:
    """transformers builds its masks from `is_causal`, as in models made for embeddings."""
    folder = create(tmp_path / "model", "llama", "Model", is_causal=False)
    read, ours = batch(padding="left"), pairform.load(folder)
    got = ours(**read.inputs).last_hidden_state
    assert error(got, reference(folder)(**read.inputs).last_hidden_state, read.real) <= FLOAT32
    pairform.save(ours, tmp_path / "back", format="transformers")
    assert torch.equal(pairform.load(tmp_path / "back")(**read.inputs).last_hidden_state, got)


def test_frequencies_in_files_of_2023_are_left_there(tmp_path: Path) -> None:
    folder = create(tmp_path / "model", "llama")
    file = folder / "model.safetensors"
    tensors = load_file(file) | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    save_file(tensors, file, {"format": "pt"})
    pairform.load(folder)


def test_older_fields_of_positions_are_read(tmp_path: Path) -> None:
    new = create(tmp_path / "new", "llama", rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 500.0})
    spec = pairform.load_spec(new)

    def age(config: dict[str, Any]) -> None:
        del config["rope_parameters"]
        config |= {"rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 4.0}}

    edit_json(new / "config.json", age)
    assert differences(pairform.load_spec(new), spec) == {}


@pytest.mark.parametrize(
    ("family", "field", "value"),
    [
        ("llama", "hidden_size", "x"),
        ("llama", "num_key_value_heads", 3),
        ("llama", "hidden_act", "tanhshrink"),
        ("llama", "rope_parameters", {"rope_type": "longrope"}),
        ("llama", "rope_parameters", {"rope_type": "yarn"}),
        ("llama", "rope_parameters", {"rope_type": "yarn", "factor": 0.5}),
        ("llama", "rope_parameters", {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0, "high_freq_factor": 1.0}),
        ("llama", "partial_rotary_factor", 0.5),
        ("llama", "architectures", ["LlamaForQuestionAnswering"]),
        ("llama", "attention_bias", "qkv"),
        ("mistral", "sliding_window", 0),
        ("mistral", "head_dim", -1),
        ("qwen2", "layer_types", ["full_attention"]),
        ("qwen2", "layer_types", ["sliding_attention"] * 3),
        ("qwen2", "max_window_layers", "x"),
        ("qwen3", "use_sliding_window", 1),
        ("qwen3", "num_hidden_layers", 0),
    ],
)
def test_a_broken_configuration_names_its_field(family: str, field: str, value: object, tmp_path: Path) -> None:
    folder = create(tmp_path / "model", family)
    edit_json(folder / "config.json", lambda config: config.update({field: value}))
    known = {"num_key_value_heads": "kv_heads (3) to divide heads (4)", "layer_types": "", "rope_parameters": ""}
    refused(lambda: pairform.load(folder), "config.json", known.get(field, field))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"rope_parameters": {"rope_type": "longrope"}}, "short_factor: found nothing, expected a list of numbers"),
        ({"partial_rotary_factor": 0.5}, "transformers rotates the whole head whatever this says, or fails"),
    ],
)
def test_positions_that_are_not_built_are_refused_with_the_reason(fields: dict[str, Any], reason: str, tmp_path: Path) -> None:
    folder = create(tmp_path / "model", "llama")
    edit_json(folder / "config.json", lambda config: config.update(fields))
    refused(lambda: pairform.load(folder), "config.json", reason)


@pytest.mark.parametrize(
    ("patch", "words"),
    [
        ({"decoder": {"layer": {"norm": {"unit_offset": True}}}}, "decoder.embedding.scale"),
        ({"decoder": {"embedding": {"scale": "sqrt_width"}}}, "decoder.embedding.scale"),
        ({"decoder": {"layer": {"branches": {"self_attention": {"softcap": 50.0}}}}}, "softcap"),
        ({"head": {"softcap": 30.0}}, "head.softcap"),
    ],
)
def test_what_transformers_cannot_say_is_not_written(patch: dict[str, Any], words: str, tmp_path: Path) -> None:
    ours = pairform.load(create(tmp_path / "model", "llama"), patch=patch)
    refused(lambda: pairform.save(ours, tmp_path / "back", format="transformers"), words)
    assert not (tmp_path / "back").exists()
