"""What is known of a spec's parameters before a model is built."""

import pytest
import torch

import pairform
from pairform.assemblies.modeling.build import parameters_of, skeleton
from tests.small_pairs import small_pair


@pytest.mark.parametrize("preset", ["t5gemma-b-b", "t5gemma2-270m-270m", "t5-small"])
def test_they_are_those_of_the_built_model(preset: str) -> None:
    spec = small_pair(preset)
    model = pairform.build(spec, seed=0)
    known = parameters_of(spec)
    assert {name: each.shape for name, each in known.items()} == {
        name: tuple(parameter.shape) for name, parameter in model.named_parameters()
    }
    assert list(known) == [name for name, _ in model.named_parameters()]
    wide = {name for name, parameter in model.half().named_parameters() if parameter.dtype == torch.float32}
    assert {name for name, each in known.items() if each.wide} == wide


def test_a_skeleton_holds_no_weights_and_leaves_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    assert all(parameter.is_meta for parameter in skeleton(small_pair()).parameters())
    assert torch.equal(torch.get_rng_state(), before)
