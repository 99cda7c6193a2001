"""The report as a browser shows it."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pairform.experiments.report import report
from tests.browser import DRIVER, ENTER, Browser, browser
from tests.studies.small_study import run

pytestmark = pytest.mark.skipif(DRIVER is None, reason="no chromedriver to open the page with")
RESULTS = "(//table)[1]"
COLOURS = """
return [...document.querySelectorAll("body *")]
  .filter((element) => element.checkVisibility())
  .filter((element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim()))
  .map((element) => {
    const style = getComputedStyle(element);
    return [element instanceof SVGElement ? style.fill : style.color, element.closest("pre") ? "pre" : "body"];
  });
"""
"""The colour of every text that is shown, and what it stands on."""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    smaller = {"decoder": {"layer": {"branches": {"feed_forward": {"hidden": 4}}}}}
    diverges = {"training": {"optimizer": {"name": "sgd", "learning_rate": 1e30}, "steps": 6}}
    run(folder, {"variants": {"smaller": smaller, "diverges": diverges}, "seeds": [0, 1]}, jobs=2)
    return report(folder / "study")


@pytest.fixture(scope="module")
def opened() -> Iterator[Browser]:
    with browser() as found:
        yield found


def variants(shown: Browser) -> list[str]:
    return [
        name[1:].strip()
        for name in shown.run(
            "return [...document.querySelectorAll('table')[0].tBodies[0].rows].map((row) => row.cells[0].textContent.trim())"
        )
    ]


def sorted_by(shown: Browser) -> list[tuple[str, str]]:
    found = shown.run(
        "return [...document.querySelectorAll('[aria-sort]')].map((head) => [head.textContent.trim(), head.ariaSort])"
    )
    return [(name, order) for name, order in found]


def heading(name: str) -> str:
    return f"{RESULTS}//button[normalize-space()='{name}']"


def test_the_table_sorts_by_click_and_by_key(page: Path, opened: Browser) -> None:
    opened.show(width=1280)
    opened.open(page)
    assert variants(opened) == ["separate", "merged", "smaller", "diverges"]
    assert sorted_by(opened) == []
    opened.click(heading("Parameters"))
    assert variants(opened) == ["merged", "smaller", "separate", "diverges"]  # what has no number stays last
    assert sorted_by(opened) == [("Parameters", "ascending")]
    opened.press(heading("Parameters"), ENTER)
    assert variants(opened) == ["separate", "smaller", "merged", "diverges"]
    assert sorted_by(opened) == [("Parameters", "descending")]
    opened.press(heading("Variant"), " ")
    assert variants(opened) == ["diverges", "merged", "separate", "smaller"]
    assert sorted_by(opened) == [("Variant", "ascending")]
    assert opened.messages() == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_and_can_be_read(page: Path, opened: Browser, width: int, dark: bool) -> None:
    opened.show(width=width, dark=dark)
    opened.open(page)
    opened.run("for (const part of document.querySelectorAll('details')) part.open = true")
    assert opened.run("return document.documentElement.scrollWidth") == width
    backs = {
        tag: opened.run(f"return getComputedStyle(document.querySelector('{tag}')).backgroundColor") for tag in ("body", "pre")
    }
    assert (luminance(backs["body"]) < 0.1) == dark
    shown = {(colour, backs[on]) for colour, on in opened.run(COLOURS)}
    assert len(shown) > 4
    assert {pair for pair in shown if contrast(*pair) < 4.5} == set()
    assert opened.messages() == []


def luminance(colour: str) -> float:
    """Relative, as WCAG 2.2 defines it for sRGB."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """From 1 to 21; text of common size needs 4.5 (WCAG 2.2, criterion 1.4.3)."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)
