"""Committed files that the code must reproduce: the JSON Schema, and each preset's expanded form.

`make schema` (`python -m tests.golden`) rewrites them, so that every change of a preset shows as a text diff.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pairform

HERE = Path(__file__).parent
SCHEMA = HERE.parents[1] / "registry" / "pairform.schema.json"


def golden_files() -> Iterator[tuple[Path, dict[str, Any]]]:
    """Each file with the document that it should hold."""
    yield SCHEMA, pairform.schema()
    for name in pairform.presets():
        yield HERE / f"{name}.json", pairform.load_spec(name).document()


def text_of(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2) + "\n"
