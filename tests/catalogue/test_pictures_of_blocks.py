"""The pictures of the documentation: small, described, used, and with all of their text inside."""

from xml.etree import ElementTree

import pytest

import pairform
from tests.golden.figures import FIGURES, draw
from tests.reader import ROOT

SVG = "{http://www.w3.org/2000/svg}"
LETTER = 7.0
"""The mean width of a letter at 12 pixels, at most."""


@pytest.mark.parametrize("name", FIGURES)
def test_a_picture_is_small_and_holds_its_text(name: str) -> None:
    text = draw(name)
    assert len(text.encode()) < 40_000
    root = ElementTree.fromstring(text)
    assert root.findtext(f"{SVG}title") == FIGURES[name].alt
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for element in root.iter(f"{SVG}text"):
        size = LETTER * len(element.text or "")
        x = float(element.attrib["x"]) - {"middle": size / 2, "end": size}.get(element.get("text-anchor", ""), 0)
        assert 0 <= x <= x + size <= width, element.text
        assert 10 < float(element.attrib["y"]) < height, element.text


@pytest.mark.parametrize("name", FIGURES)
def test_a_picture_is_shown_with_its_description(name: str) -> None:
    kind, _, block = name.partition("-")
    pages = sorted((ROOT / "docs" / "explanations").glob("*.md"))
    if block:
        assert block in pairform.blocks(kind)
        pages = [ROOT / "docs" / "blocks.md"]
    shown = [page for page in pages if f"![{FIGURES[name].alt}]" in page.read_text("utf-8")]
    assert shown, "no page shows it with its description"
