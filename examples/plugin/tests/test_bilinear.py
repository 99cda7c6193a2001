"""The block is found by its name alone, and computes its formula."""

import torch

import pairform

SPEC = {
    "extends": "t5gemma-s-s",
    "vocabulary": 32,
    "encoder": {"width": 32, "depth": 1},
    "decoder": {"width": 32, "depth": 1, "layer": {"branches": {"feed_forward": {"name": "bilinear", "hidden": 48}}}},
}


def test_the_formula() -> None:
    block = pairform.build(SPEC, seed=0, dtype=torch.float64).get_submodule("decoder.layers.0.feed_forward.block")
    hidden = torch.randn(2, 3, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weights = {name.split("_")[0]: parameter for name, parameter in block.named_parameters()}
    inner = (hidden @ weights["gate"].T) * (hidden @ weights["up"].T)
    torch.testing.assert_close(block(hidden, None), inner @ weights["down"].T)


def test_a_model_with_it_trains_and_writes() -> None:
    model = pairform.build(SPEC, seed=0).train()
    tokens = torch.tensor([[5, 6, 7], [8, 9, 10]])
    model(tokens, labels=tokens).loss.backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())
    assert model.eval().generate(tokens, max_new_tokens=2).shape == (2, 3)
