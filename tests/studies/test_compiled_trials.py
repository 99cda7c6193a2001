"""Trials with compiled layers. Graphs are run as they were traced: to generate machine code takes a compiler minutes."""

from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

import pairform
from pairform.experiments.execution.trial import train
from tests.studies.by_hand import kept_settings, planned, trained

SETTINGS: dict[str, Any] = {"steps": 6, "batch": 3, "log_every": 1, "evaluate_every": 2, "checkpoint_every": 4}
MEASURES = ("loss", "gradient_norm", "accuracy", "exact_match")


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> CompileCounterWithBackend:
    """Counts what is compiled."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("eager")
    monkeypatch.setattr(pairform.Model, "compile_layers", partialmethod(pairform.Model.compile_layers, backend=counter))
    return counter


def trial(folder: Path, compiled: bool) -> Any:
    """Three layers in each stack, batches of uneven lengths, and a last batch of validation that is not full."""
    deep = {"initializer_range": 0.5, "encoder": {"depth": 3}, "decoder": {"depth": 3}}
    data = {"length": [1, 7], "validation": 7}
    return planned(folder, {"base": deep, "training": SETTINGS | {"compile": compiled}, "data": data})


def measures(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: line[name] for name in MEASURES if name in line} for line in lines]


def test_compiled_layers_compute_the_same(tmp_path: Path, graphs: CompileCounterWithBackend) -> None:
    """All batches have one shape, so that each kind of layer is compiled for the first layer, then for any other one."""
    expected, _ = trained(*trial(tmp_path / "plain", compiled=False))
    assert graphs.frame_count == 0
    found, _ = trained(*trial(tmp_path / "compiled", compiled=True))
    assert graphs.frame_count <= 2 * 4
    assert graphs.frame_count > 0
    for line, plain in zip(measures(found), measures(expected), strict=True):
        assert line == pytest.approx(plain, rel=1e-4)
    assert [line["tokens"] for line in found] == [line["tokens"] for line in expected]


def test_a_compiled_trial_resumes_to_the_same_numbers(tmp_path: Path, graphs: CompileCounterWithBackend) -> None:
    """Also in a process that has compiled nothing, whose first batch has other lengths."""
    run, examples = trial(tmp_path, compiled=True)
    lines: list[dict[str, Any]] = []
    with kept_settings():
        train(run, examples, False, lines.append, checkpoints=tmp_path / "checkpoints")
        torch._dynamo.reset()
        resumed: list[dict[str, Any]] = []
        train(run, examples, False, resumed.append, checkpoints=tmp_path / "checkpoints", begin=4)
    assert measures(resumed) == [each for each, line in zip(measures(lines), lines, strict=True) if line["step"] > 4]
