"""`loss_tokens`: the loss is a sum over labels divided by a given number, so that parts of a batch add up to the whole."""

from typing import Any

import pytest
import torch
from torch import Tensor

import pairform
from tests.small_pairs import small_pair, tokens
from tests.small_vision import document

IGNORED = -100


def decoder_only(head: dict[str, Any]) -> dict[str, Any]:
    return document("decoder_only", pictures=False) | {"head": head, "vocabulary": 97, "initializer_range": 0.3}


def uneven(rows: int, length: int) -> Tensor:
    """Labels of which each row has another number."""
    labels = tokens(5, rows=rows, length=length)
    return labels.masked_fill(torch.arange(length) > 2 + 2 * torch.arange(rows)[:, None], IGNORED)


def gradients(model: pairform.Model, batches: list[dict[str, Any]]) -> dict[str, Tensor]:
    model.zero_grad()
    for batch in batches:
        model(**batch).loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


PRESETS = ("t5gemma-b-b", "t5gemma2-270m-270m")


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("wrap", [int, torch.tensor])
def test_parts_of_a_batch_add_up_to_its_gradient(preset: str, wrap: Any) -> None:
    model = pairform.build(small_pair(preset), seed=0).train()
    source, labels = tokens(rows=4), uneven(4, 9)
    whole = gradients(model, [{"input_ids": source, "labels": labels}])
    count = wrap(int(labels.ne(IGNORED).sum()))
    parts = [{"input_ids": source[row], "labels": labels[row], "loss_tokens": count} for row in ([0], [1, 2], [3])]
    for name, gradient in gradients(model, parts).items():
        torch.testing.assert_close(gradient, whole[name], rtol=1e-5, atol=1e-7, msg=name)


def test_the_sum_over_the_own_number_is_the_mean() -> None:
    model = pairform.build(small_pair(), seed=0)
    source, labels = tokens(rows=2), uneven(2, 9)
    mean = model(source, labels=labels).loss
    count = int(labels.ne(IGNORED).sum())
    torch.testing.assert_close(model(source, labels=labels, loss_tokens=count).loss, mean)
    torch.testing.assert_close(model(source, labels=labels, loss_tokens=2 * count).loss, mean / 2)
    torch.testing.assert_close(model(source, labels=labels, loss_tokens=torch.tensor(2.0 * count)).loss, mean / 2)


def test_a_part_without_labels_adds_nothing() -> None:
    model = pairform.build(small_pair(), seed=0).train()
    loss = model(tokens(), labels=torch.full((2, 9), IGNORED), loss_tokens=7).loss
    assert loss == 0
    loss.backward()
    assert all(not parameter.grad.any() for parameter in model.parameters() if parameter.grad is not None)


HEADS: dict[str, tuple[dict[str, Any], Tensor, int]] = {
    "lm": ({"name": "lm"}, tokens(3, rows=2, length=6), 10),  # the first token of a row is predicted by none
    "token_classification": ({"name": "token_classification", "labels": 5}, tokens(3, rows=2, length=6) % 5, 12),
    "span": ({"name": "span"}, torch.tensor([[0, 3], [2, 4]]), 4),
    "single_label": ({"name": "sequence_classification", "labels": 3}, torch.tensor([2, 0]), 2),
    "regression": ({"name": "sequence_classification", "labels": 1}, torch.tensor([0.3, -2.0]), 2),
    "multi_label": ({"name": "sequence_classification", "labels": 3}, torch.tensor([[1.0, 0, 1], [0, 0, 1]]), 6),
    "contrastive": ({"name": "contrastive"}, torch.tensor([1, 0]), 2),
}


@pytest.mark.parametrize("name", HEADS)
def test_every_head_divides_its_sum(name: str) -> None:
    head, labels, count = HEADS[name]
    model = pairform.build(decoder_only(head), seed=0)
    ids = tokens(1, rows=2, length=6)
    mean = model(ids, labels=labels).loss
    torch.testing.assert_close(model(ids, labels=labels, loss_tokens=3).loss, mean * count / 3)


def test_auxiliary_losses_do_not_change() -> None:
    mixture = {"name": "mixture", "experts": 2, "top_k": 1, "expert": {"name": "mlp", "hidden": 8}}
    patch = {"decoder": {"layer": {"branches": {"feed_forward": mixture}}}}
    model = pairform.build(pairform.patch(small_pair(), patch), seed=0).train()
    source, labels = tokens(rows=2), uneven(2, 9)
    plain, given = model(source, labels=labels), model(source, labels=labels, loss_tokens=1000)
    assert plain.auxiliary_loss is not None
    torch.testing.assert_close(given.auxiliary_loss, plain.auxiliary_loss)
    share = int(labels.ne(IGNORED).sum()) / 1000
    torch.testing.assert_close(given.loss, plain.auxiliary_loss + (plain.loss - plain.auxiliary_loss) * share)


@pytest.mark.parametrize(
    ("count", "found"),
    [
        (0, "0"),
        (True, "True"),
        (2.5, "2.5"),
        ("many", "many"),
        (torch.tensor([3]), "the shape [1]"),
        (torch.tensor(-1), "-1"),
        (torch.tensor(float("nan")), "nan"),
    ],
)
def test_what_is_no_number_of_labels_is_rejected(count: Any, found: str) -> None:
    model = pairform.build(small_pair(), seed=0)
    with pytest.raises(pairform.PairformError, match="loss_tokens") as error:
        model(tokens(), labels=tokens(1), loss_tokens=count)
    assert found in str(error.value)


def test_without_labels_it_is_rejected() -> None:
    with pytest.raises(pairform.PairformError, match="labels beside it"):
        pairform.build(small_pair(), seed=0)(tokens(), decoder_input_ids=tokens(1), loss_tokens=3)
