"""GPT-2 as transformers computes it, there and back."""

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
from tests.parity.pictures import same_bytes

SMALL: dict[str, Any] = {
    "vocab_size": 96,
    "n_embd": 32,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": 64,
    "initializer_range": 0.5,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


@made_once
def create(folder: Path, /, kind: str = "LMHeadModel", *, seed: int = 0, **changes: Any) -> Path:
    torch.manual_seed(seed)
    model = getattr(transformers, f"GPT2{kind}")(transformers.GPT2Config(**{**SMALL, **changes}))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".ln_" in name:
                parameter.normal_(1.0, 0.3)
    return write(folder, model)


def random_config(seed: int) -> dict[str, Any]:
    rng = random.Random(seed)
    heads = rng.choice([1, 2, 4, 6])
    return {
        "n_embd": heads * rng.choice([5, 8, 16]),
        "n_inner": rng.choice([None, 24, 40]),
        "n_layer": rng.randint(1, 4),
        "n_head": heads,
        "activation_function": rng.choice(["gelu_new", "gelu_new", "gelu", "relu", "silu"]),
        "layer_norm_epsilon": rng.choice([1e-5, 1e-3]),
        "tie_word_embeddings": rng.random() < 0.6,
        "scale_attn_weights": rng.random() < 0.8,
        "resid_pdrop": rng.choice([0.0, 0.1]),
        "embd_pdrop": rng.choice([0.0, 0.2]),
        "attn_pdrop": rng.choice([0.0, 0.3]),
    }


@pytest.mark.parametrize("seed", SEEDS)
def test_random_models(seed: int, tmp_path: Path) -> None:
    """In a call without position_ids transformers counts padding on the left too: see the next test."""

    def folder_of(folder: Path, seed: int) -> Path:
        return create(folder, seed=seed, **random_config(seed))

    check_family(folder_of, seed, tmp_path, kind="decoder", paddings=(None, "right"))


@torch.no_grad()
def test_padding_on_the_left_has_no_position(tmp_path: Path) -> None:
    folder = create(tmp_path / "model")
    read, ours, theirs = batch(padding="left"), pairform.load(folder), reference(folder)
    counted = (read.mask.cumsum(-1) - 1).clamp(min=0)
    assert error(ours(**read.inputs).logits, theirs(**read.inputs, position_ids=counted).logits, read.real) <= FLOAT32
    expected = theirs.generate(**read.inputs, max_new_tokens=12, do_sample=False)
    for use_cache in (True, False):
        assert torch.equal(ours.generate(**read.inputs, max_new_tokens=12, use_cache=use_cache), expected)


@pytest.mark.parametrize("kind", ["Model", "ForSequenceClassification", "ForTokenClassification"])
@torch.no_grad()
def test_other_heads(kind: str, tmp_path: Path) -> None:
    folder = create(tmp_path / "model", kind, num_labels=3)
    read, ours = batch(padding="right"), pairform.load(folder)
    output = ours(**read.inputs)
    got = output.last_hidden_state if output.logits is None else output.logits
    real = None if kind == "ForSequenceClassification" else read.real
    assert error(got, reference(folder)(**read.inputs)[0], real) <= FLOAT32
    pairform.save(ours, tmp_path / "back", format="transformers")
    assert same_bytes(folder, tmp_path / "back")
    reference(tmp_path / "back", strict=True)


def resave(folder: Path, change: Any) -> None:
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, {"format": "pt"})


def test_files_of_2019_are_read(tmp_path: Path) -> None:
    """Their names lack a prefix, and they hold the masks, as integers in some."""
    folder = create(tmp_path / "model")
    expected = pairform.load(folder).state_dict()

    def age(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        masks = {f"h.{layer}.attn.bias": torch.ones(1, 1, 64, 64, dtype=torch.uint8) for layer in range(3)}
        masks |= {f"h.{layer}.attn.masked_bias": torch.tensor(-1e4) for layer in range(3)}
        return {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()} | masks

    resave(folder, age)
    found = pairform.load(folder).state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())
    assert pairform.verify(folder).ok
    resave(folder, lambda tensors: tensors | {"ln_f.bias": torch.ones(32, dtype=torch.uint8)})
    refused(lambda: pairform.load(folder), "ln_f.bias: found the dtype U8")


def test_a_transposed_tensor_of_another_shape_is_refused(tmp_path: Path) -> None:
    folder = create(tmp_path / "model")
    name = "transformer.h.0.mlp.c_fc.weight"
    resave(folder, lambda tensors: tensors | {name: tensors[name].T.contiguous()})
    refused(lambda: pairform.load(folder), f"{name}: found the shape [128, 32], expected [32, 128]")


def test_too_long_a_text_is_refused(tmp_path: Path) -> None:
    ours = pairform.load(create(tmp_path / "model", n_positions=10))
    refused(lambda: ours(**batch().inputs), "position", "10")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("scale_attn_by_inverse_layer_idx", True),
        ("reorder_and_upcast_attn", True),
        ("add_cross_attention", True),
        ("n_head", 5),
        ("n_inner", 0),
        ("activation_function", "tanhshrink"),
        ("architectures", ["GPT2DoubleHeadsModel"]),
    ],
)
def test_a_broken_configuration_names_its_field(field: str, value: object, tmp_path: Path) -> None:
    folder = create(tmp_path / "model")
    edit_json(folder / "config.json", lambda config: config.update({field: value}))
    refused(lambda: pairform.load(folder), "config.json", {"n_head": "heads"}.get(field, field))
