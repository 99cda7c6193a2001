"""Modules that moved are still found under their old names."""

from importlib import import_module

import pytest

from pairform.moved import MOVED


@pytest.mark.parametrize("old", MOVED)
def test_an_old_name_is_the_module_that_moved(old: str) -> None:
    with pytest.warns(DeprecationWarning, match="has moved to"):
        module = import_module(f"pairform.{old}")
    assert module is import_module(f"pairform.{MOVED[old]}")
    assert module.__name__ == f"pairform.{MOVED[old]}"
