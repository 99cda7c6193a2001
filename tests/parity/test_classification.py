"""Classifiers over sequences and tokens: logits and losses equal transformers', encoder-only, with a decoder, decoder-only."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import T5GemmaConfig, T5GemmaForSequenceClassification

import pairform
from tests.checkpoints import SMALL
from tests.parity.compare import FLOAT32, PADDINGS, batch, create, error, reference

UNEQUAL: dict[str, Any] = {
    "encoder": {"hidden_size": 48, "num_attention_heads": 6, "num_hidden_layers": 3, "sliding_window": 3}
}
KINDS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "gemma2": ("Gemma2", {}),
    "encoder": ("T5Gemma", {"is_encoder_decoder": False}),
    "encoder-decoder": ("T5Gemma", {}),
    "unequal": ("T5Gemma", UNEQUAL),
}
"""What a classifier may stand on: the family and its configuration."""

INTEGERS, FLOATS = torch.tensor([2, 0, 1]), torch.tensor([0.5, -1.0, 2.0])
MANY = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
PROBLEMS: Mapping[str, tuple[dict[str, Any], Tensor]] = {
    "regression": ({"num_labels": 1}, FLOATS),
    "single label": ({"num_labels": 3}, INTEGERS),
    "multi label": ({"num_labels": 3}, MANY),
    "named regression": ({"num_labels": 3, "problem_type": "regression"}, MANY),
    "named single label": ({"num_labels": 3, "problem_type": "single_label_classification"}, INTEGERS),
    "named multi label": ({"num_labels": 3, "problem_type": "multi_label_classification"}, MANY),
}
"""Configuration and labels. transformers infers the kind of problem where none is named."""


def both(folder: Path, kind: str, head: str, **config: Any) -> tuple[pairform.Model, Any]:
    family, base = KINDS[kind]
    create(folder, f"{family}For{head}", **base, **config)
    return pairform.load(folder), reference(folder)


def check(ours: Any, theirs: Any, real: Tensor | None = None) -> None:
    assert error(ours.logits, theirs.logits, real) <= FLOAT32
    assert error(ours.loss, theirs.loss) <= FLOAT32


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_sequences(kind: str, problem: str, tmp_path: Path) -> None:
    config, labels = PROBLEMS[problem]
    ours, theirs = both(tmp_path / "model", kind, "SequenceClassification", **config)
    for padding in PADDINGS:
        inputs = {**batch(padding=padding).inputs, "labels": labels}
        check(ours(**inputs), theirs(**inputs))


@torch.no_grad()
def test_labels_of_a_regression_are_not_rounded_to_half_precision(tmp_path: Path) -> None:
    model: Any = both(tmp_path / "model", "encoder-decoder", "SequenceClassification", num_labels=1)[0].bfloat16()
    labels = 1001 + torch.arange(len(batch().ids))  # bfloat16 has no 1001
    output = model(**batch().inputs, labels=labels.float())
    torch.testing.assert_close(output.loss, (output.logits[:, 0].float() - labels).square().mean())


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_tokens(kind: str, tmp_path: Path) -> None:
    """Labels stand where their logits do. A decoder reads the source shifted right, so its padding is one place later."""
    ours, theirs = both(tmp_path / "model", kind, "TokenClassification", num_labels=3)
    for padding in PADDINGS:
        read = batch(padding=padding)
        real = read.real
        if ours.decoder is not None and ours.encoder is not None:
            real = torch.nn.functional.pad(real[:, :-1], (1, 0), value=True)
        inputs = {**read.inputs, "labels": (read.ids % 3).masked_fill(~real, -100)}
        check(ours(**inputs), theirs(**inputs), real)


@pytest.mark.parametrize("head", ["SequenceClassification", "TokenClassification"])
@pytest.mark.parametrize("kind", ["gemma2", "encoder"])
@torch.no_grad()
def test_from_embeddings(kind: str, head: str, tmp_path: Path) -> None:
    """The rows of the table, scaled by Gemma 2's callers and by T5Gemma itself, are as good as the tokens."""
    ours, theirs = both(tmp_path / "model", kind, head, num_labels=3)
    for padding in (None, "left"):
        read = batch(padding=padding)
        embeds = theirs.get_input_embeddings()(read.ids)
        inputs = {"inputs_embeds": embeds, "attention_mask": read.mask}
        real = read.real if head.startswith("Token") else None
        assert error(ours(**inputs).logits, theirs(**inputs).logits, real) <= FLOAT32
        assert error(ours(**inputs).logits, ours(**read.inputs).logits, real) <= FLOAT32


@pytest.mark.parametrize("head", ["SequenceClassification", "TokenClassification"])
@torch.no_grad()
def test_from_embeddings_beside_a_decoder(head: str, tmp_path: Path) -> None:
    """transformers refuses these; they work where the decoder's tokens are given."""
    ours, theirs = both(tmp_path / "model", "unequal", head, num_labels=3)
    read = batch(padding="right")
    embeds = theirs.get_input_embeddings()(read.ids)
    shifted = ours.shift_right(read.ids)
    written = {"decoder_input_ids": shifted, "decoder_attention_mask": (shifted != 0).long()}
    got = ours(inputs_embeds=embeds, attention_mask=read.mask, **written).logits
    expected = theirs(**read.inputs).logits
    real = None if head.startswith("Sequence") else shifted != 0
    assert error(got, expected, real) <= FLOAT32
    assert torch.equal(got, ours(**read.inputs, **written).logits)


@pytest.mark.parametrize("kind", ["gemma2", "encoder"])
@torch.no_grad()
def test_with_embeddings_the_mask_says_where_a_sequence_ends(kind: str, tmp_path: Path) -> None:
    """transformers would take the last place, padding or not."""
    ours, theirs = both(tmp_path / "model", kind, "SequenceClassification", num_labels=3)
    read = batch(padding="right")
    got = ours(inputs_embeds=theirs.get_input_embeddings()(read.ids), attention_mask=read.mask).logits
    assert error(got, theirs(**read.inputs).logits) <= FLOAT32


def test_names_of_labels_survive(tmp_path: Path) -> None:
    names = {0: "calm", 1: "glad", 2: "sad"}
    config = T5GemmaConfig(
        encoder=SMALL, decoder=SMALL, id2label=names, label2id={name: label for label, name in names.items()}
    )
    T5GemmaForSequenceClassification(config).save_pretrained(tmp_path / "theirs")
    model = pairform.load(tmp_path / "theirs")
    assert model.spec.head.document()["labels"] == ["calm", "glad", "sad"]
    pairform.save(model, tmp_path / "ours")
    pairform.export(tmp_path / "ours", tmp_path / "back")
    assert T5GemmaForSequenceClassification.from_pretrained(tmp_path / "back").config.id2label == names
