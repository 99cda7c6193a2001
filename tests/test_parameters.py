"""What is known of a spec's parameters before a model is built."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

import pairform
from pairform.assemblies.modeling.build import parameters_of, skeleton
from pairform.blocks.feedforward import DenseFeedForward, FeedForward
from tests.small_pairs import sharing_pair, small_pair


def experts() -> pairform.ModelSpec:
    """Experts of several modules, beside a dense block."""
    mixture = {
        "name": "mixture",
        "experts": 12,
        "top_k": 2,
        "expert": {"name": "mlp", "hidden": 8, "bias": True, "wide_output": True},
        "shared": {"name": "gated", "hidden": 8},
    }
    layer = {"order": ["self_attention", "feed_forward"], "branches": {"feed_forward": mixture, "cross_attention": None}}
    return small_pair(assembly="decoder_only", encoder=None, decoder={"layer": layer})


SPECS: dict[str, Callable[[], pairform.ModelSpec]] = {
    **{name: partial(small_pair, name) for name in ("t5gemma-b-b", "t5gemma2-270m-270m", "t5-small")},
    "shared keys": sharing_pair,
    "experts": experts,
}


@pytest.mark.parametrize("kind", SPECS)
def test_they_are_those_of_the_built_model(kind: str) -> None:
    spec = SPECS[kind]()
    model = pairform.build(spec, seed=0)
    known = parameters_of(spec)
    assert {name: each.shape for name, each in known.items()} == {
        name: tuple(parameter.shape) for name, parameter in model.named_parameters()
    }
    assert list(known) == [name for name, _ in model.named_parameters()]
    wide = {name for name, parameter in model.half().named_parameters() if parameter.dtype == torch.float32}
    assert {name for name, each in known.items() if each.wide} == wide


def test_one_of_equal_experts_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """A published mixture has thousands, each of several modules."""
    built: list[nn.Module] = []
    build = DenseFeedForward.__init__

    def recorded(self: DenseFeedForward, *given: Any) -> None:
        built.append(self)
        build(self, *given)

    monkeypatch.setattr(FeedForward, "__init__", recorded)
    parameters = parameters_of(pairform.patch(experts(), {"vocabulary": 98}))
    assert len(built) == 2, "one in each layer"
    assert sum("up_proj.weight" in name and "shared" not in name for name in parameters) == 2 * 12


def test_a_skeleton_holds_no_weights_and_leaves_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    assert all(parameter.is_meta for parameter in skeleton(small_pair()).parameters())
    assert torch.equal(torch.get_rng_state(), before)
