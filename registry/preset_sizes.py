"""How large the presets are, from a committed table: to count parameters takes torch, to list presets does not."""

from pathlib import Path
from typing import Any

from pairform.registry.json_values import read_json

TABLE = Path(__file__).with_suffix(".json")
"""Made by `make schema` and held by a test."""


def preset_sizes() -> dict[str, dict[str, Any]]:
    """By preset: `parameters`, and for each stack (`encoder`, `decoder`) its `depth` in layers and its `width`."""
    return read_json(TABLE)
