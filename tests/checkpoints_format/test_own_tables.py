"""A stored head or embedding that differs from the one that config.json ties it to is kept, as in transformers."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import pairform
from tests.broken.damage import SINGLE, refused
from tests.checkpoints import gemma2, gemma3_text, t5gemma2
from tests.parity import test_llama_like, test_t5
from tests.parity.compare import FLOAT32, batch, error, reference

MAKE: dict[str, tuple[Callable[[Path], Path], str, str]] = {
    "gemma2": (gemma2, "lm_head.weight", "model.embed_tokens.weight"),
    "gemma3": (gemma3_text, "lm_head.weight", "model.embed_tokens.weight"),
    "qwen2": (
        partial(test_llama_like.create, family="qwen2", tie_word_embeddings=True),
        "lm_head.weight",
        "model.embed_tokens.weight",
    ),
    "t5gemma2": (t5gemma2, "lm_head.out_proj.weight", "model.encoder.text_model.embed_tokens.weight"),
    "t5": (test_t5.create, "lm_head.weight", "shared.weight"),
    "t5's decoder": (test_t5.create, "decoder.embed_tokens.weight", "shared.weight"),
}


def with_table(folder: Path, name: str, tied_to: str, *, equal: bool) -> Path:
    tensors = load_file(folder / SINGLE)
    table = next(tensor for key, tensor in tensors.items() if key.endswith(tied_to.split(".text_model.")[-1]))
    torch.manual_seed(1)
    save_file(tensors | {name: table.clone() if equal else torch.randn_like(table)}, folder / SINGLE, {"format": "pt"})
    return folder


@pytest.mark.parametrize("kind", MAKE)
@torch.no_grad()
def test_a_table_of_its_own_is_kept(kind: str, tmp_path: Path) -> None:
    make, name, tied_to = MAKE[kind]
    folder = with_table(make(tmp_path / "model"), name, tied_to, equal=False)
    ours = pairform.load(folder)
    inputs: dict[str, Any] = batch().inputs
    if ours.encoder is not None:
        inputs |= batch(1).decoder_inputs
    assert error(ours(**inputs).logits, reference(folder, trained_window=False).eval()(**inputs).logits) <= FLOAT32
    assert (getattr(ours.spec.head, "tie", None) is None) == name.startswith("lm_head")


@pytest.mark.parametrize("kind", MAKE)
def test_an_equal_table_stays_tied(kind: str, tmp_path: Path) -> None:
    make, name, tied_to = MAKE[kind]
    folder = make(tmp_path / "model")
    before = pairform.load_spec(folder)
    assert pairform.load_spec(with_table(folder, name, tied_to, equal=True)) == before
    assert pairform.load(folder).spec == before


def test_the_plan_has_a_row_for_a_head_of_its_own(tmp_path: Path) -> None:
    folder = with_table(gemma2(tmp_path / "model"), *MAKE["gemma2"][1:], equal=False)
    plan = pairform.plan(encoder=folder, decoder=folder)
    assert [row.source.tensor for row in plan.targets if row.target == "head.weight" and row.source] == ["head.weight"]


def test_an_encoder_with_another_table_than_the_shared_one_is_refused(tmp_path: Path) -> None:
    folder = with_table(test_t5.create(tmp_path / "model"), "encoder.embed_tokens.weight", "shared.weight", equal=False)
    refused(lambda: pairform.load(folder), "encoder.embed_tokens.weight", "another table than shared.weight")
