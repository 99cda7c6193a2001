"""One training step equals transformers': the loss, the gradient of every parameter, and which activations are dropped."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import pairform
from tests.parity.compare import (
    FLOAT32,
    PADDINGS,
    Batch,
    batch,
    create,
    error,
    parameters,
    random_gemma2,
    random_t5gemma,
    reference,
)

RELATIVE = 1e-3
"""Largest difference of a parameter's gradient over the largest value in it."""
ZERO = 3e-6
"""Over the model's largest gradient: what float32 leaves of a gradient that is zero in exact arithmetic. Such are the key
bias without softcap (it adds the same to all scores of a query) and queries and keys behind a window of one token."""


def labels_of(read: Batch) -> Tensor:
    """The tokens themselves, -100 at padding."""
    return read.ids.masked_fill(~read.real, -100)


def check_gradients(ours: pairform.Model, theirs: nn.Module, inputs: dict[str, Tensor]) -> None:
    loss, expected = ours(**inputs).loss, theirs(**inputs).loss
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    loss.backward()
    expected.backward()
    gradients = {name: (gradient_of(mine), gradient_of(other)) for name, mine, other in parameters(ours, theirs)}
    zero = ZERO * max(float(other.abs().max()) for _, other in gradients.values())
    for name, (got, wanted) in gradients.items():
        if wanted.abs().max() > zero:
            assert error(got, wanted) <= RELATIVE, name
        else:
            assert any(f".{side}_{part}." in name for side in "qk" for part in ("proj", "norm"))
            assert got.abs().max() <= zero, name


def check_dropout(ours: pairform.Model, theirs: nn.Module, inputs: dict[str, Tensor]) -> None:
    """Whether the same random state drops the same activations in both."""
    torch.manual_seed(1)
    loss = ours(**inputs).loss
    torch.manual_seed(1)
    torch.testing.assert_close(loss, theirs(**inputs).loss, rtol=1e-5, atol=0)
    assert loss != ours(**inputs).loss


def gradient_of(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


@pytest.mark.parametrize("seed", range(100, 109))
def test_gemma2(seed: int, tmp_path: Path) -> None:
    folder = create(tmp_path / "model", "Gemma2ForCausalLM", seed=seed, **random_gemma2(seed))
    read = batch(seed, padding=PADDINGS[seed % 3])
    labels = labels_of(read)
    check_gradients(pairform.load(folder, kernel="eager"), reference(folder), {**read.inputs, "labels": labels})
    # the last of left padding sees nothing, and only the eager kernel trains what it looks for
    seen = functional.pad(read.real[:, :-1], (1, 0), value=True)
    labels = labels.masked_fill(~seen, -100)
    check_gradients(pairform.load(folder), reference(folder), {**read.inputs, "labels": labels})


@pytest.mark.parametrize("seed", range(100, 112))
def test_t5gemma(seed: int, tmp_path: Path) -> None:
    """Balanced and unequal. The decoder reads the labels shifted right; those at the end of short rows are -100."""
    folder = create(tmp_path / "model", "T5GemmaForConditionalGeneration", seed=seed, **random_t5gemma(seed))
    read, written = batch(seed, padding=PADDINGS[seed % 3], vocabulary=80), batch(seed + 1, padding="right")
    inputs = {**read.inputs, "labels": labels_of(written)}
    for kernel in ("eager", "auto"):
        check_gradients(pairform.load(folder, kernel=kernel), reference(folder), inputs)


@pytest.mark.parametrize("masked", [True, False])
def test_padding_that_is_read_trains_nothing_it_should_not(masked: bool, tmp_path: Path) -> None:
    """Pad tokens in front of a decoder's text, seen and unseen: an own head keeps the table's gradients apart."""
    read = batch(padding="left")
    one = create(tmp_path / "gemma2", "Gemma2ForCausalLM", tie_word_embeddings=False)
    inputs = read.inputs if masked else {"input_ids": read.ids}
    ours = pairform.load(one)
    check_gradients(ours, reference(one), {**inputs, "labels": labels_of(read)})
    assert ours.decoder is not None
    assert not gradient_of(ours.decoder.embedding.weight)[0].any()
    two = create(tmp_path / "t5gemma", "T5GemmaForConditionalGeneration", tie_word_embeddings=False)
    inputs = read.inputs if masked else {"input_ids": read.ids, "attention_mask": torch.ones_like(read.mask)}
    check_gradients(pairform.load(two), reference(two), {**inputs, "labels": labels_of(batch(1, padding="left"))})


def test_kernels_agree_where_a_query_sees_nothing(tmp_path: Path) -> None:
    """Its output is the mean of all values, in every kernel, and gradients stay of one size."""
    folder = create(tmp_path / "model", "Gemma2ForCausalLM", attn_logit_softcapping=None)
    read = batch(padding="left")
    eager, fused = (pairform.load(folder, kernel=kernel) for kernel in ("eager", "sdpa"))
    assert error(fused(**read.inputs).logits, eager(**read.inputs).logits) <= FLOAT32
    norms = []
    for model in (eager, fused):
        model(**read.inputs, labels=labels_of(read)).loss.backward()
        norms.append(float(nn.utils.get_total_norm([gradient_of(parameter) for parameter in model.parameters()])))
    assert norms[1] <= 2 * norms[0]


@pytest.mark.parametrize("head", ["SequenceClassification", "TokenClassification"])
@pytest.mark.parametrize("config", [{}, {"is_encoder_decoder": False}])
def test_t5gemma_classifiers(head: str, config: dict[str, Any], tmp_path: Path) -> None:
    folder = create(tmp_path / "model", f"T5GemmaFor{head}", **config)
    read = batch(padding="right")
    labels = torch.tensor([0, 1, 1]) if head.startswith("Sequence") else (read.ids % 2).masked_fill(~read.real, -100)
    check_gradients(pairform.load(folder), reference(folder), {**read.inputs, "labels": labels})


@pytest.mark.parametrize(
    ("architecture", "config"),
    [
        ("Gemma2ForCausalLM", {"attention_dropout": 0.3}),
        ("T5GemmaForConditionalGeneration", {"dropout_rate": 0.2, "attention_dropout": 0.3}),
        ("T5GemmaForTokenClassification", {"dropout_rate": 0.2, "attention_dropout": 0.3, "classifier_dropout_rate": 0.4}),
        ("Gemma2ForTokenClassification", {"attention_dropout": 0.3, "classifier_dropout": 0.4}),
    ],
)
def test_training_with_dropout_draws_as_transformers_does(architecture: str, config: dict[str, Any], tmp_path: Path) -> None:
    """The same random state drops the same activations, everywhere and in the same order."""
    folder = create(tmp_path / "model", architecture, **config)
    read = batch(padding="right")
    labels = read.ids % 2 if "Token" in architecture else read.ids
    inputs = {**read.inputs, "labels": labels.masked_fill(~read.real, -100)}
    check_dropout(pairform.load(folder).train(), reference(folder).train(), inputs)
