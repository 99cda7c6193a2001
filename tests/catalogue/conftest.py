"""Fixtures of the catalogue's tests."""

from functools import partial

import pytest
import torch


@pytest.fixture
def graphs_as_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs are run as they were traced, without machine code, which tests/merged generates."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
