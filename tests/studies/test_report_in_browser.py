"""The report as a browser shows it."""

import json
import os
import re
from pathlib import Path

import pytest

from pairform.experiments.report import report
from tests.browser import DRIVER, ENTER, Browser
from tests.studies.report_page import show_charts, wait
from tests.studies.small_study import write_results

pytestmark = pytest.mark.skipif(DRIVER is None, reason="no chromedriver to open the page with")
RESULTS = "(//table)[1]"
COLOURS = """
return [...document.querySelectorAll("body *")]
  .filter((element) => element.checkVisibility())
  .filter((element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim()))
  .map((element) => {
    const style = getComputedStyle(element);
    const panel = element.closest("pre, .legend button, .controls button");
    return [element instanceof SVGElement ? style.fill : style.color, panel ? "pre" : "body"];
  });
"""
"""The colour of every text that is shown, and what it stands on."""


CLIPPED = """
return [...document.querySelectorAll(".plot")].flatMap((plot) => {
  const frame = plot.getBoundingClientRect();
  return [...plot.querySelectorAll("text")].filter((text) => {
    const box = text.getBoundingClientRect();
    return box.left < frame.left - 1 || box.right > frame.right + 1 || box.bottom > frame.bottom + 1;
  }).map((text) => text.textContent);
});
"""
"""Words of charts that reach out of them."""


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
@pytest.mark.parametrize("width", [375, 768, 1400])
def test_the_page_fits_and_can_be_read(page: Path, opened: Browser, width: int, dark: bool) -> None:
    opened.show(width=width, dark=dark)
    opened.open(page)
    opened.run("for (const part of document.querySelectorAll('details')) part.open = true")
    show_charts(opened)
    assert opened.run("return document.documentElement.scrollWidth") == width
    assert opened.run(CLIPPED) == []
    backs = {
        tag: opened.run(f"return getComputedStyle(document.querySelector('{tag}')).backgroundColor") for tag in ("body", "pre")
    }
    assert (luminance(backs["body"]) < 0.1) == dark
    shown = {(colour, backs[on]) for colour, on in opened.run(COLOURS)}
    assert len(shown) > 4
    assert {pair for pair in shown if contrast(*pair) < 4.5} == set()
    assert opened.messages() == []


def test_a_link_unfolds_a_variant(page: Path, opened: Browser) -> None:
    opened.open(page)
    opened.click(f"{RESULTS}//a[.='merged']")
    shown = "return [...document.querySelectorAll('.variant')].map((each) => each.checkVisibility())"
    wait(lambda: opened.run(shown) == [False, True, False, False])
    assert opened.run("return document.querySelector('#variant-2 svg.diagram, #variant-2 svg').checkVisibility()")


HOSTILE = [
    "<img src=x onerror=window.hacked=1>",
    "</script><script>window.hacked=1</script>",
    "{b|x}{a}",
    "\u202eto the left אבג",
    "line\nbreak\x1b[2J\x00\x07",
    "x" * 100_000,
    "x" * 99_999 + "y",
    "$\\frac{$",
    "__proto__",
    "a\"b'c`&amp;",
]


def test_hostile_names_and_errors_are_text(tmp_path: Path, opened: Browser) -> None:
    folder = write_results(tmp_path, {name: [1.0, 1.2, 1.1, None] for name in HOSTILE}, {"name": HOSTILE[1]})
    for file in folder.glob("trials/*/trial.json"):
        trial = json.loads(file.read_text())
        if trial["status"] == "failed":
            file.write_text(json.dumps(trial | {"error": "\n".join(HOSTILE)}))
        else:
            logged = [{"split": "train", "step": step, "loss": 1 / step} for step in (1, 2, 3)]
            (file.parent / "metrics.jsonl").write_text("\n".join(map(json.dumps, logged)))
    (folder / "environment.json").write_text(json.dumps({"command": HOSTILE[1], "note": {HOSTILE[0]: HOSTILE[5]}}))
    opened.show(width=375)
    opened.open(report(folder))
    opened.run("for (const part of document.querySelectorAll('details')) part.open = true")
    assert show_charts(opened) == 3
    assert opened.run("return document.documentElement.scrollWidth") == 375
    counts = "return [window.hacked ?? 0, document.querySelectorAll('img').length, document.scripts.length]"
    assert opened.run(counts) == [0, 0, 5], "the page's own scripts"
    shown = opened.run("return [...document.querySelectorAll('.legend')].pop().innerText.split('\\n')")
    assert {HOSTILE[0], HOSTILE[1], HOSTILE[2], "\\u202eto the left אבג", "__proto__"} <= {name.lstrip("●■") for name in shown}
    assert opened.messages() == []


@pytest.mark.parametrize("count", [4, 12, 60])
def test_pages_of_many_variants_are_small_and_open_at_once(tmp_path: Path, opened: Browser, count: int) -> None:
    names = [f"variant {place}" for place in range(count)]
    folder = write_results(tmp_path, {name: [1.0 + place / 100, 1.2, 1.1] for place, name in enumerate(names)})
    for file in folder.glob("trials/*/result.json"):
        logged = [{"split": "train", "step": step, "loss": 1 / step} for step in range(1, 1001)]
        (file.parent / "metrics.jsonl").write_text("\n".join(map(json.dumps, logged)))
    page = report(folder)
    assert page.stat().st_size < 6e6
    opened.show(width=1400)
    opened.open(page)
    loaded = opened.run("return performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd")
    assert loaded < 2000
    assert show_charts(opened) == 3
    keys = "[...[...document.querySelectorAll('.legend')].pop().querySelectorAll('.key')]"
    assert len(set(opened.run(f"return {keys}.map((key) => key.className + key.innerText)"))) == count
    assert opened.messages() == []


@pytest.mark.skipif("AXE_CORE" not in os.environ, reason="AXE_CORE does not name the axe.min.js of the npm package axe-core")
@pytest.mark.parametrize("width", [375, 1400])
def test_axe_finds_nothing(page: Path, opened: Browser, width: int) -> None:
    opened.show(width=width)
    opened.tools("Page.setBypassCSP", {"enabled": True})  # for its script
    try:
        opened.open(page)
        show_charts(opened)
        opened.run("for (const part of document.querySelectorAll('details')) part.open = true")
        opened.tools("Runtime.evaluate", {"expression": Path(os.environ["AXE_CORE"]).read_text("utf-8")})
        run_axe = {
            "expression": "axe.run().then((found) => JSON.stringify(found))",
            "awaitPromise": True,
            "returnByValue": True,
        }
        found = json.loads(opened.tools("Runtime.evaluate", run_axe)["result"]["value"])
    finally:
        opened.tools("Page.setBypassCSP", {"enabled": False})
    assert len(found["passes"]) > 20
    assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found["violations"]] == []


def luminance(colour: str) -> float:
    """Relative, as WCAG 2.2 defines it for sRGB."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """From 1 to 21; text of common size needs 4.5 (WCAG 2.2, criterion 1.4.3)."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)
