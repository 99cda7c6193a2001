"""Logits beside a loss are those of the forward pass: once weights have changed, reading them is an error."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

import pairform
from tests.broken.damage import refused
from tests.small_pairs import small_pair, tokens

READ, WRITTEN = tokens(), tokens(1)


def adam(**options: Any) -> Callable[[nn.Module], object]:
    return lambda model: torch.optim.AdamW(model.parameters(), lr=0.1, **options).step()


def behind_autograd(model: nn.Module) -> None:
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.data.add_(parameter.grad, alpha=-0.1)


def doubled(model: nn.Module) -> None:
    model.load_state_dict({name: 2 * tensor for name, tensor in model.state_dict().items()})


@torch.no_grad()
def one_word(model: nn.Module) -> None:
    for name in {name for name, _ in model.named_parameters()} & {"decoder.embedding.weight", "head.weight"}:
        model.get_parameter(name)[5] = 1.0


CHANGES: dict[str, Callable[[Any], object]] = {
    "an optimiser": adam(),
    "a fused optimiser": adam(fused=True),
    "a step through .data": behind_autograd,
    "other weights": doubled,
    "one row": one_word,
    "half precision": lambda model: model.to(torch.bfloat16),
    "half precision and back": lambda model: model.to(torch.bfloat16).float(),
}


def trained(head: dict[str, Any]) -> tuple[pairform.Model, Any]:
    model = pairform.build(small_pair(head=head), seed=0)
    output: Any = model(READ, labels=WRITTEN)
    output.loss.backward()
    return model, output


@pytest.mark.parametrize("tie", ["decoder", None])
@pytest.mark.parametrize("change", CHANGES)
def test_they_are_refused_after_a_change(change: str, tie: str | None) -> None:
    model, output = trained({"tie": tie})
    CHANGES[change](model)
    refused(lambda: output.logits, "logits", "weights that have changed since the forward pass", "before the weights change")


def test_they_are_refused_after_a_compiled_pass_too() -> None:
    model = pairform.build(small_pair(depth=1), seed=0)
    compiled: Any = torch.compile(model, backend="eager", fullgraph=True)
    for change in (one_word, doubled):
        output = compiled(READ, labels=WRITTEN)
        change(model)
        refused(partial(getattr, output, "logits"), "logits")


def test_they_are_refused_after_a_pass_without_gradients() -> None:
    model = pairform.build(small_pair(), seed=0).eval()
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            output = model(READ, labels=WRITTEN)
        one_word(model)
        refused(partial(getattr, output, "logits"), "logits")
        model.get_parameter("decoder.embedding.weight").data.mul_(1.5)


def test_they_are_kept_once_read() -> None:
    model, output = trained({})
    before = output.logits.clone()
    assert torch.equal(before, model(READ, decoder_input_ids=model.shift_right(WRITTEN)).logits)
    adam()(model)
    assert torch.equal(output.logits, before)


def test_they_can_be_read_later_from_the_same_weights() -> None:
    """Also if the weights hold NaN, which is not equal to itself."""
    model, output = trained({})
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    model.zero_grad()
    assert output.logits.shape == (2, 11, 97)
    model.get_parameter("decoder.embedding.weight").data.fill_(torch.nan)
    assert model(READ, labels=WRITTEN).logits.isnan().all()
