"""The diagrams of docs/gallery, which the code must reproduce. `python -m tests.gallery` rewrites them."""

import re
from collections.abc import Iterator
from pathlib import Path

import pairform

ROOT = Path(__file__).parents[2]
SPECS = sorted((ROOT / "examples" / "gallery").glob("*.json"))
PAGES = ROOT / "docs" / "gallery"
FIGURES = ROOT / "docs" / "figures" / "gallery"
SMALL = 180
"""Width of a diagram in the overview, in pixels."""


def diagrams() -> Iterator[tuple[Path, str]]:
    """Each file with the diagram that it should hold: in its own size, and in that of the overview."""
    for file in SPECS:
        diagram = pairform.diagram(file, title=file.stem)
        yield FIGURES / f"{file.stem}.svg", diagram
        yield FIGURES / "small" / f"{file.stem}.svg", resized(diagram, SMALL)


def resized(diagram: str, width: int) -> str:
    """The same drawing, shown in another width."""
    found = re.search(r'width="([\d.]+)" height="([\d.]+)" role="img"', diagram)
    assert found, "the first line of a diagram"
    size = f'width="{width}" height="{width * float(found[2]) / float(found[1]):.0f}" role="img"'
    return diagram.replace(found[0], size, 1)
