"""A training step of a small model takes fewer operators than that of transformers."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks import models, small
from benchmarks.train import step

Step = Callable[[], Tensor]


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> tuple[Step, Step]:
    """The step of each library, ours first, after one that fills what is made once."""
    folder: Path = tmp_path_factory.mktemp("small") / "model"
    models.write(small.spec(), folder, "float32")
    made = [
        step(model, model, small.SHAPE, "cpu") for model in (models.ours(folder, "cpu", None), models.theirs(folder, "cpu"))
    ]
    for each in made:
        each()
    return made[0], made[1]


def operators(call: Step) -> int:
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        call()
    return sum(event.count for event in profiled.key_averages() if event.key.startswith("aten::"))


def test_a_step_takes_fewer_operators_than_that_of_transformers(steps: tuple[Step, Step]) -> None:
    ours, theirs = map(operators, steps)
    assert ours < theirs


def test_they_compute_the_same(steps: tuple[Step, Step]) -> None:
    torch.testing.assert_close(steps[0](), steps[1](), rtol=1e-4, atol=0)
