"""T5Gemma 2, text and pictures: numbers, gradients and written tokens are transformers'."""

import random
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

import pairform
from tests.checkpoints import t5gemma2
from tests.parity.compare import FLOAT32, PADDINGS, Batch, error
from tests.parity.pictures import (
    check_half_precision,
    in_half_precision,
    pictured,
    random_text,
    random_vision,
    real_positions,
    reference,
    same_bytes,
    text,
)
from tests.parity.test_gradients import check_dropout, check_gradients, labels_of

NEW = 24


def random_t5gemma2(seed: int, folder: Path, **changes: Any) -> dict[str, Any]:
    """Write a random model, whose stacks share only their width and vocabulary; what its pictures are."""
    rng = random.Random(seed)
    vision, tokens, side = random_vision(rng)
    encoder, decoder = (random_text(rng) for _ in range(2))
    for part in (encoder, decoder):
        heads = part["num_attention_heads"]
        part["hidden_size"] = 24 if 24 % heads == 0 else heads * 8
    decoder["hidden_size"] = encoder["hidden_size"] = 24
    pictures = {"mm_tokens_per_image": tokens}
    t5gemma2(folder, seed=seed, encoder=encoder, decoder=decoder, vision=vision, pictures=pictures, **changes)
    return {"tokens": tokens, "side": side}


def both(read: Batch, written: Batch) -> tuple[dict[str, Any], dict[str, Any]]:
    """The same inputs as we take them, and as transformers does: with positions that skip padding."""
    ours = {**read.inputs, **written.decoder_inputs}
    return ours, {**ours, "decoder_position_ids": real_positions(written)}


@pytest.mark.parametrize("seed", range(12))
@torch.no_grad()
def test_random_models(seed: int, tmp_path: Path) -> None:
    """Text and pictures in turn; own embeddings now and then. There and back, the weights are the same bytes."""
    folder = tmp_path / "model"
    kind = random_t5gemma2(seed, folder, tie_word_embeddings=seed % 4 != 3)
    reading, writing = list(product(PADDINGS, PADDINGS))[seed % 9]
    read = pictured(seed, padding=reading, **kind) if seed % 2 else text(seed, length=22, padding=reading)
    written = text(seed + 1, length=18, padding=writing)
    mine, inputs = both(read, written)
    theirs = reference(folder)
    expected = theirs(**inputs)
    ours = pairform.load(folder)
    for kernel in ("auto", "eager"):
        ours.use_kernel(kernel)
        got = ours(**mine)
        assert error(got.encoder_last_hidden_state, expected.encoder_last_hidden_state, read.real) <= FLOAT32
        assert error(got.logits, expected.logits, written.real) <= FLOAT32
    pairform.save(ours, tmp_path / "back", format="transformers")
    assert same_bytes(folder, tmp_path / "back")
    if seed % 4 in (0, 3):
        assert torch.equal(reference(tmp_path / "back")(**inputs).logits, expected.logits)


@torch.no_grad()
def test_what_is_read_and_the_window_matter(tmp_path: Path) -> None:
    """The tests above can fail: a picture, a token of the source and one place of a window each change the numbers."""
    folder = t5gemma2(tmp_path / "model")
    read, written = pictured(0), text(1)
    ours = pairform.load(folder)
    inputs, _ = both(read, written)
    plain = ours(**inputs).logits
    assert plain is not None
    other = read.ids.clone()
    other[:, 0] = 9
    layer = {"branches": {"self_attention": {"mask": {"window": [2, 1]}}}}
    narrow = pairform.load(folder, patch={"encoder": {"layer": layer}})
    changed = (
        ours(**inputs | {"pixel_values": pictured(2).pixels}),
        ours(**inputs | {"input_ids": other}),
        narrow(**inputs),
    )
    assert all(error(got.logits, plain) > 100 * FLOAT32 for got in changed)


@pytest.mark.parametrize("pictures", [True, False])
@torch.no_grad()
def test_attentions_come_split_into_own_and_source(pictures: bool, tmp_path: Path) -> None:
    folder = t5gemma2(tmp_path / "model", encoder={"num_hidden_layers": 3, "layer_types": ["full_attention"] * 3})
    inputs, theirs = both(pictured() if pictures else text(length=17), text(1, length=11))
    asked = {"output_hidden_states": True, "output_attentions": True}
    got, expected = pairform.load(folder)(**inputs, **asked), reference(folder, attn_implementation="eager")(**theirs, **asked)
    names = ("decoder_attentions", "cross_attentions", "encoder_attentions", "decoder_hidden_states", "encoder_hidden_states")
    for name in names:
        mine = getattr(got, name)
        assert mine is not None
        assert all(error(*pair) <= FLOAT32 for pair in zip(mine, getattr(expected, name), strict=True)), name


@pytest.mark.parametrize("seed", range(4))
def test_gradients(seed: int, tmp_path: Path) -> None:
    """Of every parameter: the tower's where it is not frozen, and the shared table's from all who read it."""
    kind = random_t5gemma2(seed, tmp_path / "model", tie_word_embeddings=seed % 2 == 0)
    read, written = pictured(seed, padding=PADDINGS[seed % 3], **kind), text(seed + 1, padding="right")
    inputs = {**read.inputs, "labels": labels_of(written)}
    ours = pairform.load(tmp_path / "model", kernel="eager", patch={"encoder": {"vision": {"frozen": False}}})
    check_gradients(ours, reference(tmp_path / "model"), inputs)


@pytest.mark.parametrize("padding", PADDINGS)
def test_greedy_generation(padding: str | None, tmp_path: Path) -> None:
    folder = t5gemma2(tmp_path / "model", tie_word_embeddings=False)
    ours, theirs = pairform.load(folder), reference(folder)
    found = []
    for read in (text(length=20, padding=padding), pictured(padding=padding)):
        expected = theirs.generate(**read.inputs, max_new_tokens=NEW, do_sample=False)
        for use_cache in (True, False):
            assert torch.equal(ours.generate(**read.inputs, max_new_tokens=NEW, use_cache=use_cache), expected)
        found.append(expected)
    assert not torch.equal(*found)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("head", ["SequenceClassification", "TokenClassification"])
@torch.no_grad()
def test_classifiers(head: str, padding: str | None, tmp_path: Path) -> None:
    folder = t5gemma2(tmp_path / "model", f"T5Gemma2For{head}", num_labels=3)
    written = text(1, padding=padding)
    inputs, theirs = both(pictured(padding=padding), written)
    sequences = head.startswith("Sequence")
    labels = torch.tensor([2, 0, 1]) if sequences else (written.ids % 3).masked_fill(~written.real, -100)
    got, expected = pairform.load(folder)(**inputs, labels=labels), reference(folder)(**theirs, labels=labels)
    assert error(got.logits, expected.logits, None if sequences else written.real) <= FLOAT32
    assert error(got.loss, expected.loss) <= FLOAT32


@torch.no_grad()
def test_without_a_head(tmp_path: Path) -> None:
    folder = t5gemma2(tmp_path / "model", "T5Gemma2Model")
    inputs, theirs = both(pictured(padding="right"), text(1))
    got = pairform.load(folder)(**inputs)
    assert got.logits is None
    assert error(got.last_hidden_state, reference(folder)(**theirs).last_hidden_state) <= FLOAT32


@torch.no_grad()
def test_embeddings_in_place_of_tokens(tmp_path: Path) -> None:
    """T5Gemma 2 does not scale what it is given."""
    folder = t5gemma2(tmp_path / "model")
    embeds, other = torch.randn(2, 3, 10, 32)
    inputs = {"inputs_embeds": embeds, "decoder_inputs_embeds": other, "attention_mask": torch.ones(3, 10, dtype=torch.long)}
    assert error(pairform.load(folder)(**inputs).logits, reference(folder)(**inputs).logits) <= FLOAT32


@torch.no_grad()
def test_an_encoder_alone(tmp_path: Path) -> None:
    """transformers gives it an end of image of its own, 256000, here beyond the vocabulary."""
    whole = reference(t5gemma2(tmp_path / "whole", pictures={"eoi_token_index": 256_000}))
    whole.get_encoder().save_pretrained(tmp_path / "model")
    read = pictured(padding="left")
    ours = pairform.load(tmp_path / "model")
    expected = reference(tmp_path / "model")(**read.inputs).last_hidden_state
    assert error(ours(**read.inputs).last_hidden_state, expected, read.real) <= FLOAT32
    pairform.save(ours, tmp_path / "back", format="transformers")
    assert same_bytes(tmp_path / "model", tmp_path / "back")
    assert error(reference(tmp_path / "back")(**read.inputs).last_hidden_state, expected) == 0


def test_half_precision(tmp_path: Path) -> None:
    found = []
    for seed in range(6):
        folder, written = tmp_path / str(seed), text(seed + 1)
        kind = random_t5gemma2(seed, folder)
        inputs, theirs = both(pictured(seed, **kind), written)
        found.append(in_half_precision(folder, inputs, theirs, written.real))
    check_half_precision(found)


def test_training_with_dropout_draws_as_transformers_does(tmp_path: Path) -> None:
    folder = t5gemma2(tmp_path / "model", dropout_rate=0.2, attention_dropout=0.3)
    read, written = pictured(), text(1)
    inputs = {**read.inputs, "labels": written.ids}
    check_dropout(pairform.load(folder).train(), reference(folder).train(), inputs)
