"""Committed files that the code must reproduce: the JSON Schema, the page of all blocks and the documentation's pictures, each
preset's size and expanded form.

`make schema` (`python -m tests.golden`) rewrites them, so that every change of a preset shows as a text diff.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pairform
from pairform.cli.blocks import markdown
from pairform.registry.documents import PRESET_SIZES
from tests.golden.figures import FIGURES, draw

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "registry" / "pairform.schema.json"
BLOCKS = ROOT / "docs" / "blocks.md"
EXPANDED = ROOT / "registry" / "presets" / "expanded"
"""Shipped too: the command line shows a preset from it, without importing torch."""


def golden_files() -> Iterator[tuple[Path, dict[str, Any] | str]]:
    """Each file with the document or text that it should hold."""
    yield SCHEMA, pairform.schema()
    yield from page_files()
    yield PRESET_SIZES, {name: size(pairform.load_spec(name)) for name in pairform.presets()}
    for name in pairform.presets():
        yield EXPANDED / f"{name}.json", pairform.load_spec(name).document()


def page_files() -> Iterator[tuple[Path, str]]:
    """The page of all blocks, and the documentation's pictures."""
    yield BLOCKS, markdown({name: figure.alt for name, figure in FIGURES.items()})
    for name in FIGURES:
        yield BLOCKS.parent / "figures" / "blocks" / f"{name}.svg", draw(name)


def size(spec: pairform.ModelSpec) -> dict[str, Any]:
    """What `pairform presets` shows of a preset."""
    parameters = pairform.inspect(spec, source_length=1, target_length=1).parameters["total"]
    return {"parameters": parameters} | {
        name: {"depth": stack.depth, "width": stack.width} for name, stack in spec.stacks.items()
    }


def text_of(document: dict[str, Any] | str) -> str:
    return document if isinstance(document, str) else json.dumps(document, indent=2) + "\n"
