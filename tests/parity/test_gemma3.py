"""Gemma 3, with and without pictures: numbers, gradients and written tokens are transformers'."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

import pairform
from tests.checkpoints import gemma3, gemma3_text
from tests.parity.compare import FLOAT32, PADDINGS, check_logits, error
from tests.parity.pictures import (
    check_half_precision,
    in_half_precision,
    pictured,
    random_text,
    random_vision,
    reference,
    same_bytes,
    text,
)
from tests.parity.test_gradients import check_gradients, labels_of

NEW = 24


def random_gemma3(seed: int, folder: Path, **changes: Any) -> dict[str, Any]:
    """Write a random model; what its pictures are."""
    rng = random.Random(seed)
    vision, tokens, side = random_vision(rng)
    gemma3(folder, seed=seed, text=random_text(rng) | changes, vision=vision, mm_tokens_per_image=tokens)
    return {"tokens": tokens, "side": side}


@pytest.mark.parametrize("seed", range(9))
@torch.no_grad()
def test_random_text_models(seed: int, tmp_path: Path) -> None:
    """And there and back, the folder's weights are the same bytes."""
    folder = gemma3_text(tmp_path / "model", seed=seed, **random_text(random.Random(seed)))
    read = text(seed, length=20, padding=PADDINGS[seed % 3])
    ours = pairform.load(folder)
    expected = check_logits(ours, reference(folder), read)
    pairform.save(ours, tmp_path / "back", format="transformers")
    assert same_bytes(folder, tmp_path / "back")
    if seed % 4 == 0:
        assert torch.equal(reference(tmp_path / "back")(**read.inputs).logits, expected)


@pytest.mark.parametrize("seed", range(12))
@torch.no_grad()
def test_random_models_with_pictures(seed: int, tmp_path: Path) -> None:
    kind = random_gemma3(seed, tmp_path / "model", final_logit_softcapping=None)
    read = pictured(seed, padding=PADDINGS[seed % 3], **kind)
    theirs = reference(tmp_path / "model")
    expected = theirs(**read.theirs).logits
    ours = pairform.load(tmp_path / "model")
    assert error(ours(**read.inputs).logits, expected, read.real) <= FLOAT32
    plain = text(seed, padding=PADDINGS[seed % 3])
    assert error(ours(**plain.inputs).logits, theirs(**plain.inputs).logits, plain.real) <= FLOAT32
    pairform.save(ours, tmp_path / "back", format="transformers")
    assert same_bytes(tmp_path / "model", tmp_path / "back")
    if seed % 4 == 0:
        assert torch.equal(reference(tmp_path / "back")(**read.theirs).logits, expected)


@torch.no_grad()
def test_one_layer_in_six_is_global_where_none_is_said_to_be(tmp_path: Path) -> None:
    folder = gemma3_text(tmp_path / "model", layer_types=None, num_hidden_layers=7)
    read = text(length=20)
    ours = pairform.load(folder)
    assert error(ours(**read.inputs).logits, reference(folder)(**read.inputs).logits) <= FLOAT32
    assert ours.spec.decoder is not None
    assert len(ours.spec.decoder.cycle) == 6


@torch.no_grad()
def test_pictures_matter(tmp_path: Path) -> None:
    read, other = pictured(0), pictured(1)
    ours = pairform.load(gemma3(tmp_path / "model"))
    assert error(ours(read.ids, pixel_values=other.pixels).logits, ours(**read.inputs).logits) > 100 * FLOAT32


@pytest.mark.parametrize("window", [1, 4, 5])
@pytest.mark.parametrize("padding", PADDINGS)
@torch.no_grad()
def test_bidirectional_windows(window: int, padding: str | None, tmp_path: Path) -> None:
    """As in EmbeddingGemma: half of `sliding_window` to each side."""
    changes: dict[str, Any] = {"use_bidirectional_attention": True, "sliding_window": window}
    folder = gemma3_text(tmp_path / "model", "Gemma3TextModel", **changes)
    read = text(padding=padding)
    ours = pairform.load(folder)
    expected = reference(folder)(**read.inputs).last_hidden_state
    assert error(ours(**read.inputs).last_hidden_state, expected, read.real) <= FLOAT32
    pairform.save(ours, tmp_path / "back", format="transformers")
    assert error(reference(tmp_path / "back")(**read.inputs).last_hidden_state, expected, read.real) == 0


@torch.no_grad()
def test_without_a_head(tmp_path: Path) -> None:
    folder = gemma3(tmp_path / "model", "Gemma3Model")
    read = pictured(padding="right")
    got, expected = pairform.load(folder)(**read.inputs), reference(folder)(**read.theirs)
    assert got.logits is None
    assert error(got.last_hidden_state, expected.last_hidden_state, read.real) <= FLOAT32


@pytest.mark.parametrize("padding", PADDINGS)
@torch.no_grad()
def test_sequence_classifiers(padding: str | None, tmp_path: Path) -> None:
    labels = torch.tensor([2, 0, 1])
    one = gemma3_text(tmp_path / "text", "Gemma3TextForSequenceClassification", num_labels=3)
    plain = text(padding=padding)
    two = gemma3(tmp_path / "pictures", "Gemma3ForSequenceClassification", num_labels=3)
    read = pictured(padding=padding)
    for folder, inputs, theirs in ((one, plain.inputs, plain.inputs), (two, read.inputs, read.theirs)):
        got, expected = pairform.load(folder)(**inputs, labels=labels), reference(folder)(**theirs, labels=labels)
        assert error(got.logits, expected.logits) <= FLOAT32
        assert error(got.loss, expected.loss) <= FLOAT32


@pytest.mark.parametrize("seed", range(3))
def test_gradients(seed: int, tmp_path: Path) -> None:
    """Of every parameter, those of the tower too where it is not frozen."""
    kind = random_gemma3(seed, tmp_path / "model", final_logit_softcapping=None, attention_bias=False)
    read = pictured(seed, padding=PADDINGS[seed % 3], **kind)
    seen = functional.pad(read.real[:, :-1], (1, 0), value=True)
    labels = labels_of(read).masked_fill(~seen, -100)  # what the last of left padding writes is of no account
    theirs = reference(tmp_path / "model")
    types = {"token_type_ids": read.theirs["token_type_ids"]}
    run = theirs.forward
    theirs.forward = lambda **inputs: run(**inputs, **types)
    unfrozen = {"decoder": {"vision": {"frozen": False}}}
    ours = pairform.load(tmp_path / "model", kernel="eager", patch=unfrozen)
    check_gradients(ours, theirs, {**read.inputs, "labels": labels})


@pytest.mark.parametrize("padding", [None, "left"])
def test_greedy_generation(padding: str | None, tmp_path: Path) -> None:
    read, plain = pictured(padding=padding), text(padding=padding)
    written = []
    for folder, inputs, theirs in (
        (gemma3(tmp_path / "model", tie_word_embeddings=False), read.inputs, read.theirs),
        (gemma3_text(tmp_path / "text", tie_word_embeddings=False), plain.inputs, plain.inputs),
    ):
        ours, expected = pairform.load(folder), reference(folder).generate(**theirs, max_new_tokens=NEW, do_sample=False)
        for use_cache in (True, False):
            assert torch.equal(ours.generate(**inputs, max_new_tokens=NEW, use_cache=use_cache), expected)
        written.append(expected)
    assert len(set(written[0].flatten().tolist())) > NEW


def test_half_precision(tmp_path: Path) -> None:
    found = []
    for seed in range(6):
        folder = tmp_path / str(seed)
        kind = random_gemma3(seed, folder, final_logit_softcapping=None)
        read = pictured(seed, **kind)
        found.append(in_half_precision(folder, read.inputs, read.theirs, read.real))
    check_half_precision(found)


@torch.no_grad()
def test_attentions_and_hidden_states(tmp_path: Path) -> None:
    folder = gemma3(tmp_path / "model")
    read, asked = pictured(), {"output_hidden_states": True, "output_attentions": True}
    got, expected = (
        pairform.load(folder)(**read.inputs, **asked),
        reference(folder, attn_implementation="eager")(**read.theirs, **asked),
    )
    for mine, theirs in ((got.hidden_states, expected.hidden_states), (got.attentions, expected.attentions)):
        assert mine is not None
        assert all(error(*pair) <= FLOAT32 for pair in zip(mine, theirs, strict=True))
