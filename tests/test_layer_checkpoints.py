"""Layers that are computed again in the backward pass give the same numbers, bit for bit, in less memory."""

from typing import Any

import pytest
import torch
from torch import Tensor

import pairform
from pairform.assemblies.modeling.stack import Stack
from tests.small_pairs import sharing_pair, small_pair, tokens

PATTERNS: list[Any] = ["all", 2, [0, -1], {"decoder": "all"}, {"encoder": [1], "decoder": 3}]


def step(model: pairform.Model) -> list[Tensor]:
    """The loss and every gradient of one step, with padding in front of the source's second row."""
    torch.manual_seed(1)
    source = tokens()
    source[1, :3] = 0
    output = model(source, labels=tokens(1))
    assert output.loss is not None
    return [
        output.loss.detach(),
        *torch.autograd.grad(output.loss, [each for each in model.parameters() if each.requires_grad]),
    ]


def runs(stack: Stack | None) -> list[int]:
    """How often each layer runs from now on."""
    assert stack is not None
    counts = [0] * len(stack.layers)

    def count(index: int) -> Any:
        def add(*call: object) -> None:
            counts[index] += 1

        return add

    for index, layer in enumerate(stack.layers):
        layer.register_forward_pre_hook(count(index))
    return counts


@pytest.mark.parametrize("preset", ["t5gemma-b-b", "t5gemma2-270m-270m"])
@pytest.mark.parametrize("kernel", ["eager", "chunked"])
@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_numbers_are_the_same_to_the_bit(preset: str, kernel: str, pattern: Any) -> None:
    attention = {"self_attention": {"dropout": 0.1 if kernel == "eager" else 0.0}}
    dropped = {"dropout": 0.2, "layer": {"dropout": 0.1, "branches": attention}}
    encoder, decoder = ({**dropped, "depth": depth} for depth in (2, 3))
    model = pairform.build(small_pair(preset, encoder=encoder, decoder=decoder), seed=0).train()
    model.use_kernel(kernel)
    expected = step(model)
    model.checkpoint_layers(pattern)
    for got, wanted in zip(step(model), expected, strict=True):
        assert torch.equal(got, wanted)


@pytest.mark.parametrize("merged", [False, True])
def test_layers_that_share_keys_compute_the_same_bits(merged: bool) -> None:
    """Also where only one of the layers that make them and read them is computed again."""
    model = pairform.build(sharing_pair(merged=merged), seed=0).train()
    expected = step(model)
    for pattern in PATTERNS:
        model.checkpoint_layers(pattern)
        for got, wanted in zip(step(model), expected, strict=True):
            assert torch.equal(got, wanted), pattern


def test_a_pattern_says_which_layers_run_twice() -> None:
    model = pairform.build(small_pair(depth=5), seed=0).train()
    counts = [runs(model.encoder), runs(model.decoder)]
    patterns: list[tuple[Any, list[int], list[int]]] = [
        ("all", [2] * 5, [2] * 5),
        (2, [2, 1, 2, 1, 2], [2, 1, 2, 1, 2]),
        ({"decoder": [0, -2]}, [1] * 5, [2, 1, 1, 2, 1]),
        ("none", [1] * 5, [1] * 5),
    ]
    for pattern, encoder, decoder in patterns:
        model.checkpoint_layers(pattern)
        step(model)
        assert counts == [encoder, decoder]
        counts[0][:], counts[1][:] = [0] * 5, [0] * 5


def test_only_training_computes_again() -> None:
    model = pairform.build(small_pair(), seed=0)
    model.checkpoint_layers()
    counts = runs(model.decoder)
    step(model.eval())
    assert counts == [1, 1]
    model.train()
    with torch.no_grad():
        model(tokens(), labels=tokens(1))
    assert counts == [2, 2]
    output = model(tokens(), decoder_input_ids=tokens(1), cache=pairform.Cache())
    torch.autograd.backward(output.logits.sum())
    assert counts == [3, 3]


def test_attention_weights_and_hidden_states_are_the_same() -> None:
    model = pairform.build(small_pair(), seed=0).train()
    asked = {"output_attentions": True, "output_hidden_states": True, "labels": tokens(1)}
    expected = model(tokens(), **asked)
    model.checkpoint_layers()
    got = model(tokens(), **asked)
    torch.autograd.backward(got.loss)
    for field in ("encoder_attentions", "decoder_attentions", "cross_attentions", "decoder_hidden_states"):
        assert all(torch.equal(one, other) for one, other in zip(getattr(got, field), getattr(expected, field), strict=True))


@pytest.mark.parametrize("pattern", ["some", 0, -1, [2], {"tower": "all"}, {"decoder": "most"}])
def test_wrong_patterns_are_refused_and_change_nothing(pattern: Any) -> None:
    model = pairform.build(small_pair(), seed=0).train()
    model.checkpoint_layers({"encoder": "all"})
    with pytest.raises(pairform.PairformError, match="checkpoint_layers"):
        model.checkpoint_layers(pattern)
    counts = runs(model.encoder)
    step(model)
    assert counts == [2, 2]


def test_less_is_held_for_the_backward_pass() -> None:
    held = []
    for pattern in ("none", "all"):
        model = pairform.build(small_pair(depth=4), seed=0).train()
        model.checkpoint_layers(pattern)
        sizes: list[int] = []

        def keep(tensor: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(tensor.nbytes)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model(tokens(length=64), labels=tokens(1, length=64))
        held.append(sum(sizes))
    assert held[1] < 0.3 * held[0]
