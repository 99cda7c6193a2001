"""Compiled layers and models have no graph breaks, compute what they compute uncompiled, and serve any length.

Graphs are run as they were traced: to generate machine code takes a compiler minutes.
"""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn import functional

import pairform
from pairform.blocks.functional.gelu import gelu_tanh
from tests.small_pairs import sharing_pair, small_pair, tokens

LENGTHS = ((11, 7), (13, 9), (17, 19))


@pytest.fixture(autouse=True)
def nothing_compiled_before() -> None:
    torch._dynamo.reset()


def pair(preset: str, depth: int = 1, dtype: torch.dtype = torch.float64) -> pairform.Model:
    """Layers with a window; "sharing" and "merged" have four of them, of which two read keys of the others. In float64, by
    default: compiled code orders some operations differently, and random layers multiply what that rounds in float32."""
    if preset in ("sharing", "merged"):
        return pairform.build(sharing_pair(merged=preset == "merged"), seed=0, dtype=dtype).train()
    windows: dict[str, Any] = {
        name: {"cycle": [{"branches": {"self_attention": {"mask": {"window": [4, reach]}}}}]}
        for name, reach in (("encoder", 4), ("decoder", 0))
    }
    return pairform.build(small_pair(preset, depth=depth, **windows), seed=0, dtype=dtype).train()


def loss_and_gradients(model: nn.Module, source: Tensor, target: Tensor) -> list[Tensor]:
    loss = model(source, labels=target).loss
    return [loss, *torch.autograd.grad(loss, [each for each in model.parameters() if each.requires_grad])]


def check_close(got: list[Tensor], expected: list[Tensor]) -> None:
    for one, other in zip(got, expected, strict=True):
        assert (one - other).abs().max() <= 1e-12 * (1 + other.abs().max())


@pytest.mark.parametrize(("preset", "kinds"), [("t5gemma-b-b", 2), ("t5gemma2-270m-270m", 2), ("sharing", 10), ("merged", 10)])
def test_layers_train_compiled_at_any_length_also_where_they_are_computed_again(preset: str, kinds: int) -> None:
    """Attention to the source apart and merged; with padding in the encoder and without in the decoder."""
    compiled, model = pair(preset, depth=3), pair(preset, depth=3)
    graphs = CompileCounterWithBackend("eager")
    compiled.compile_layers(fullgraph=True, backend=graphs)
    compiled.checkpoint_layers(2)
    for target, source in LENGTHS:
        inputs = (tokens(length=source), tokens(1, length=target))
        check_close(loss_and_gradients(compiled, *inputs), loss_and_gradients(model, *inputs))
    assert graphs.frame_count == kinds  # of layers; one more where a layer whose keys others read is computed again
    assert compiled.state_dict().keys() == model.state_dict().keys()


@pytest.mark.parametrize(("preset", "labels"), [("t5gemma-b-b", True), ("t5gemma2-270m-270m", False), ("merged", True)])
def test_a_whole_model_compiles_without_a_break(preset: str, labels: bool) -> None:
    model = pair(preset)
    graphs = CompileCounterWithBackend("eager")
    compiled: Any = torch.compile(model, fullgraph=True, backend=graphs, dynamic=True)
    for target, source in LENGTHS:
        inputs = (tokens(length=source), tokens(1, length=target))
        if labels:
            check_close(loss_and_gradients(compiled, *inputs), loss_and_gradients(model, *inputs))
            logits = [run(inputs[0], labels=inputs[1]).logits for run in (compiled, model)]
        else:
            logits = [run(inputs[0], decoder_input_ids=inputs[1]).logits for run in (compiled, model)]
        check_close(*([some] for some in logits))
    assert graphs.frame_count == 1


@torch.no_grad()
def test_compiled_layers_are_about_as_exact_as_eager_ones() -> None:
    """Against float64. Random layers multiply roundings, of which those of either may be the larger ones by chance."""
    model = pair("t5gemma-b-b", dtype=torch.float32).eval()
    inputs = {"input_ids": tokens(length=11), "decoder_input_ids": tokens(1, length=7)}
    exact, eager = copy.deepcopy(model).double()(**inputs).logits, model(**inputs).logits
    model.compile_layers(backend="eager")
    errors = [(logits - exact).abs().max().item() for logits in (model(**inputs).logits, eager)]
    assert errors[1] > 0
    assert errors[0] <= 4 * errors[1]


def test_a_compiled_gelu_is_exact_to_a_few_roundings() -> None:
    """Values to a few roundings of their own, where torch's lose all digits of negative numbers. Gradients to twice the error
    of torch's: near 1 float32 tells half as many values of a sigmoid apart as of a hyperbolic tangent."""
    numbers = torch.linspace(-5, 8, 4000).requires_grad_()
    exact = numbers.detach().double().requires_grad_()
    compiled: Any = torch.compile(gelu_tanh, backend="aot_eager", fullgraph=True)
    ours, torchs, wanted = (
        (made.detach(), *torch.autograd.grad(made.sum(), given))
        for made, given in (
            (compiled(numbers), numbers),
            (functional.gelu(numbers, approximate="tanh"), numbers),
            (functional.gelu(exact, approximate="tanh"), exact),
        )
    )
    torch.testing.assert_close(ours[0].double(), wanted[0], rtol=4e-6, atol=0)
    assert (ours[1] - wanted[1]).abs().max() <= 2 * (torchs[1] - wanted[1]).abs().max()


class Logits(nn.Module):
    """A model with tensors as arguments and as its result, which is what an exported program has."""

    def __init__(self, model: pairform.Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, source: Tensor, mask: Tensor, target: Tensor) -> Tensor:
        logits = self.model(source, mask, target).logits
        assert logits is not None
        return logits


@pytest.mark.parametrize("preset", ["sharing", "merged"])
def test_a_model_is_exported_for_any_number_of_rows_and_any_length(preset: str) -> None:
    model = Logits(pair(preset).eval())
    rows, *lengths = (torch.export.Dim(name, min=2, max=512) for name in ("rows", "source", "target"))
    shapes = [{0: rows, 1: length} for length in (lengths[0], *lengths)]

    def arguments(rows: int, source: int, target: int) -> tuple[Tensor, ...]:
        mask = torch.ones(rows, source, dtype=torch.long)
        mask[0, :3] = 0
        return tokens(rows=rows, length=source), mask, tokens(1, rows=rows, length=target)

    exported = torch.export.export(model, arguments(2, 11, 9), dynamic_shapes=tuple(shapes)).module()
    for sizes in ((3, 23, 31), (2, 5, 4)):
        torch.testing.assert_close(exported(*arguments(*sizes)), model(*arguments(*sizes)), rtol=1e-5, atol=1e-5)
