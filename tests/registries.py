"""Registries as they were, after a test that registers blocks."""

import pytest

import pairform


def forget_new_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is registered from now on is gone when `monkeypatch` ends."""
    for registry in pairform.blocks().values():
        monkeypatch.setattr(registry, "_blocks", dict(registry._blocks))
