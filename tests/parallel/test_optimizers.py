"""Steps of a sharded model are those of one process: optimisers, clipping, averages, and compiled layers."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed

import pairform
from pairform.training.optimization.averaging import MovingAverage
from pairform.training.optimization.optimizers import make_optimizer
from pairform.training.parallel import ALONE, World
from pairform.training.settings import OptimizerSpec
from pairform.training.step import gradient_norm
from tests.parallel.pairs import ROWS, batch, count, full, gradients, part
from tests.parallel.processes import run_checks
from tests.small_pairs import small_pair

OPTIMIZERS: Mapping[str, tuple[OptimizerSpec, float]] = {
    "adamw": (OptimizerSpec(name="adamw", learning_rate=0.01), 1e-3),
    "sgd": (OptimizerSpec(name="sgd", learning_rate=1.0, momentum=0.9), 1e-3),
    "muon": (OptimizerSpec(name="muon", learning_rate=0.01), 0.1),  # it orthogonalises in bfloat16
}
"""Optimisers, and by how much of its change a weight may differ."""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    if not distributed.is_available():
        pytest.skip("torch without torch.distributed")
    return run_checks(__name__, tmp_path_factory.mktemp("two"))


def new_model(world: World) -> pairform.Model:
    return pairform.shard(pairform.build(small_pair(depth=1), seed=0).train(), world.mesh)


def rows_of(world: World) -> slice:
    mine = ROWS // world.size
    return slice(world.rank * mine, (world.rank + 1) * mine)


def stepped(world: World, spec: OptimizerSpec) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The weights and their average after three steps whose gradients are clipped."""
    model, whole = new_model(world), batch("t5gemma")
    optimizers, average = make_optimizer(model, spec, fused=True), MovingAverage(model, 0.5)
    for _ in range(3):
        optimizers.zero_grad()
        loss = model(**part(whole, rows_of(world)), loss_tokens=count(whole)).loss
        assert loss is not None
        loss.backward()
        torch.nn.utils.clip_grads_with_norm_(model.parameters(), 0.5, gradient_norm(optimizers.parameters))
        optimizers.step()
        average.update(model)
    weights = {name: full(parameter.detach()) for name, parameter in model.named_parameters()}
    return weights, {name: full(value) for name, value in average.values.items()}


def check_optimizers_step_as_in_one_process(world: World, folder: Path) -> None:
    start = dict(new_model(ALONE).named_parameters())
    for name, (spec, tolerance) in OPTIMIZERS.items():
        for found, expected in zip(stepped(world, spec), stepped(ALONE, spec), strict=True):
            for key, tensor in expected.items():
                change = float((tensor - start[key].detach()).norm())
                assert change > 0, (name, key)
                assert float((found[key] - tensor).norm()) < tolerance * change, (name, key)


def check_compiled_layers_have_the_same_gradients(world: World, folder: Path) -> None:
    """Also where their activations are recomputed. Graphs are run as they were traced."""
    whole = batch("t5gemma")
    for layers in ("none", "all"):
        found = []
        for compiled in (False, True):
            model = new_model(world)
            model.checkpoint_layers(layers)
            if compiled:
                model.compile_layers(backend="eager")
            loss = model(**part(whole, rows_of(world)), loss_tokens=count(whole)).loss
            assert loss is not None
            loss.backward()
            found.append(gradients(model))
        for name, gradient in found[0].items():
            torch.testing.assert_close(found[1][name], gradient, rtol=1e-4, atol=1e-6, msg=name)


CHECKS = [name for name in dir() if name.startswith("check_")]


@pytest.mark.parametrize("check", CHECKS)
def test_in_two_processes(check: str, outcomes: dict[str, str]) -> None:
    failed = {name: text for name, text in outcomes.items() if name.startswith((f"{check} ", "process"))}
    assert not failed, "\n".join(f"{name}: {text}" for name, text in failed.items())
