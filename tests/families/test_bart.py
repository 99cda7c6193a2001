"""BART, mBART, Marian, Pegasus and M2M-100 as transformers computes them, there and back."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers.models.m2m_100.modeling_m2m_100 import M2M100SinusoidalPositionalEmbedding
from transformers.models.marian.modeling_marian import MarianSinusoidalPositionalEmbedding

import pairform
from pairform.assemblies.modeling.inputs import shift_right
from pairform.blocks.positions.absolute import SinusoidalPosition
from pairform.registry import Sizes
from tests.families.any_family import EQUAL, SEEDS, TOKENS, check_family
from tests.made_once import made_once
from tests.parity.compare import batch, error, reference, write

LM = {
    "Bart": "ForConditionalGeneration",
    "MBart": "ForConditionalGeneration",
    "Marian": "MTModel",
    "Pegasus": "ForConditionalGeneration",
    "M2M100": "ForConditionalGeneration",
}
SMALL: dict[str, Any] = {
    "vocab_size": 96,
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 40,
    "encoder_layerdrop": 0.0,
    "decoder_layerdrop": 0.0,
    "max_position_embeddings": 40,
    "init_std": 0.5,
    "decoder_start_token_id": 2,
    "dropout": 0.1,
    "attention_dropout": 0.2,
    "activation_dropout": 0.4,
}


def random_config(classes: str, seed: int) -> dict[str, Any]:
    """Unequal stacks, any activation, embeddings scaled or not, tied or not."""
    rng = random.Random(seed)
    fields = {"layers": (1, 2, 3), "attention_heads": (1, 2, 4), "ffn_dim": (16, 40), "layerdrop": (0.0,)}
    sizes = {f"{part}_{field}": rng.choice(values) for part in ("encoder", "decoder") for field, values in fields.items()}
    config: dict[str, Any] = {
        "vocab_size": 96,
        "d_model": rng.choice([16, 24, 32]),
        **sizes,
        "max_position_embeddings": 40,
        "activation_function": rng.choice(["gelu", "relu", "swish", "gelu_pytorch_tanh"]),
        "scale_embedding": rng.random() < 0.5,
        "init_std": rng.choice([0.3, 0.6]),
        "decoder_start_token_id": rng.choice([2, 5] if classes == "M2M100" else [0, 2, 5]),
        "tie_word_embeddings": seed % 3 != 2,
        "forced_eos_token_id": rng.choice([None, 2]),
        "forced_bos_token_id": rng.choice([None, 7]),
    }
    if classes == "M2M100":
        # transformers gives a generated padding token no position; real models generate none
        config["eos_token_id"] = [0, 2]
    if classes == "Marian" and (rng.random() < 0.5 or not config["tie_word_embeddings"]):
        config |= {"share_encoder_decoder_embeddings": False, "vocab_size": 100, "decoder_vocab_size": 96}
    return config


@made_once
def create(folder: Path, /, classes: str, architecture: str | None = None, *, seed: int = 0, **config: Any) -> Path:
    """A small folder of transformers' own writing, whose head has a bias where the family has one."""
    torch.manual_seed(seed)
    made = getattr(transformers, f"{classes}Config")(**{**TOKENS, **config})
    model = getattr(transformers, classes + (architecture or LM[classes]))(made)
    if hasattr(model, "final_logits_bias"):
        model.final_logits_bias.normal_(std=2.0)
    base = getattr(model, "model", model)
    if hasattr(base, "shared"):
        # untied, nothing reads it, and pairform writes the encoder's table in its place
        base.shared.weight.data.copy_(base.encoder.embed_tokens.weight.data)
    return write(folder, model)


def random_folder(folder: Path, classes: str, seed: int, *, headless: bool = False) -> Path:
    return create(folder, classes, "Model" if headless else None, seed=seed, **random_config(classes, seed))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("classes", LM)
def test_random_models(classes: str, seed: int, tmp_path: Path) -> None:
    """Right padding only where transformers counts positions over padding: left padding would move the tokens."""
    paddings = (None, "left", "right") if classes == "M2M100" else (None, "right")
    check_family(
        lambda folder, seed: random_folder(folder, classes, seed, headless=seed % 5 == 4),
        seed,
        tmp_path,
        kind="encoder_decoder",
        paddings=paddings,
    )


@pytest.mark.parametrize("classes", LM)
@torch.no_grad()
def test_beams_with_forced_tokens(classes: str, tmp_path: Path) -> None:
    """The first and the last token, from the configuration and from the call."""
    config = random_config(classes, 3) | {"forced_bos_token_id": None, "forced_eos_token_id": None}
    folder = create(tmp_path / "model", classes, **config)
    ours, theirs = pairform.load(folder), reference(folder)
    given = batch(padding="right").inputs
    forced: dict[str, Any] = {"forced_bos_token_id": 9, "forced_eos_token_id": [11, 2]}
    searches: list[dict[str, Any]] = [{}, {"num_beams": 3}, {"num_beams": 4, "length_penalty": 2.0}]
    for options in searches:
        expected = theirs.generate(**given, max_new_tokens=7, do_sample=False, **forced, **options)
        got = ours.generate(**given, max_new_tokens=7, **forced, **options)
        assert torch.equal(got, expected)
        assert (got[:, 1] == 9).all()
        assert not torch.equal(ours.generate(**given, max_new_tokens=7, **options), got)


@pytest.mark.parametrize("classes", LM)
def test_loss_from_labels(classes: str, tmp_path: Path) -> None:
    """Labels are shifted right behind the start token, in mBART behind the last of them."""
    folder = create(tmp_path / "model", classes, **random_config(classes, 1))
    ours, theirs = pairform.load(folder), reference(folder)
    labels = batch(1, length=9, padding="right").ids
    given = batch().inputs
    ignored = labels.masked_fill(labels == 0, -100)
    expected, got = theirs(**given, labels=ignored), ours(**given, labels=ignored, output_logits=True)
    assert error(got.logits, expected.logits, labels != 0) <= EQUAL
    assert error(got.loss, expected.loss) <= EQUAL
    got.loss.backward()
    assert ours.head.bias is None or ours.head.bias.grad is None


def test_labels_wrap_in_packed_rows() -> None:
    """Each document begins with its own last label."""
    spec = pairform.load_spec("t5gemma-2b-2b")
    tokens = spec.tokens.model_copy(update={"wrap": True, "pad": 0})
    ids = torch.tensor([[5, 6, 7, 8, 9, 0], [5, 6, -100, 8, 0, -100]])
    segments = torch.tensor([[1, 1, 1, 2, 2, 2], [1, 1, 1, 2, 2, 2]])
    assert shift_right(ids, tokens).tolist() == [[9, 5, 6, 7, 8, 9], [8, 5, 6, 0, 8, 0]]
    assert shift_right(ids, tokens, segments).tolist() == [[7, 5, 6, 9, 8, 9], [6, 5, 6, 8, 8, 0]]


def test_a_file_without_a_bias_of_the_head(tmp_path: Path) -> None:
    """transformers starts from zeros then."""
    folder = create(tmp_path / "model", "Bart", **random_config("Bart", 2))
    tensors = load_file(folder / "model.safetensors")
    del tensors["final_logits_bias"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    given = {**batch().inputs, **batch(1).decoder_inputs}
    ours = pairform.load(folder)
    assert error(ours(**given).logits, reference(folder)(**given).logits) <= EQUAL
    assert not ours.head.bias.any()


@pytest.mark.parametrize("classes", ["Marian", "Pegasus", "M2M100"])
@torch.no_grad()
def test_sines_far_out(classes: str) -> None:
    """Late positions in float32, as transformers' tables have them."""
    spec = {"name": "sinusoidal", "layout": "halves"} | ({"endpoint": True, "offset": 2} if classes == "M2M100" else {})
    position = SinusoidalPosition(SinusoidalPosition.Spec.read(spec), Sizes(64))
    got = position(torch.zeros(1, 2000, 64), torch.arange(2000)[None])[0]
    if classes == "M2M100":
        expected = M2M100SinusoidalPositionalEmbedding(2000, 64, 1).weights[2:2002]
    else:
        expected = MarianSinusoidalPositionalEmbedding(2000, 64).create_weight()
    assert error(got, expected) <= 1e-6
