"""The report's charts as a browser shows them: what can be done with them, on paper, and without scripts."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser import DRIVER, ENTER, Browser
from tests.studies.report_page import show_charts, wait

pytestmark = pytest.mark.skipif(DRIVER is None, reason="no chromedriver to open the page with")
CHART = "document.querySelector('[data-chart=%s] .plot')"


def drawing(shown: Browser, chart: str) -> str:
    return str(shown.run(f"return {CHART % chart}.querySelector('svg').innerHTML"))


def words(shown: Browser, chart: str) -> list[str]:
    return list(shown.run(f"return [...{CHART % chart}.querySelectorAll('text')].map((text) => text.textContent)"))


def control(chart: str, label: str) -> str:
    return f"//*[@data-chart='{chart}']//label[normalize-space()='{label}']/input"


@pytest.fixture
def charts(page: Path, opened: Browser) -> Browser:
    opened.show(width=1400)
    opened.open(page)
    show_charts(opened)
    return opened


def test_a_click_in_a_legend_hides_a_variant_in_every_chart(charts: Browser) -> None:
    ink = charts.run("return getComputedStyle(document.documentElement).getPropertyValue('--series-2').trim()")

    def drawn() -> list[bool]:
        return [ink in drawing(charts, name) for name in ("parameters", "train-loss")]

    button = "(//ul[@class='legend'])[1]//button[contains(., 'smaller')]"
    pressed = "return [...document.querySelectorAll('[data-name=smaller] button')].map((each) => each.ariaPressed)"
    assert (drawn(), charts.run(pressed)) == ([True, True], ["true", "true"])
    charts.click(button)
    assert (drawn(), charts.run(pressed)) == ([False, False], ["false", "false"])
    charts.press(button, ENTER)
    assert (drawn(), charts.run(pressed)) == ([True, True], ["true", "true"])
    charts.click("(//ul[@class='legend'])[2]//button[.='Hide all']")
    assert charts.run(
        "return [...document.querySelectorAll('.legend [data-name] button')].every((b) => b.ariaPressed === 'false')"
    )
    assert charts.messages() == []


def test_the_controls_change_a_chart(charts: Browser) -> None:
    seen = [drawing(charts, "train-loss")]
    for label in ("log loss", "bands", "single seeds"):
        charts.click(control("train-loss", label))
        seen.append(drawing(charts, "train-loss"))
    charts.press(control("train-loss", "smoothing"), "\ue014" * 20)  # the right arrow
    seen.append(drawing(charts, "train-loss"))
    assert len(set(seen)) == 5
    steps = words(charts, "train-loss")
    charts.click("//*[@data-chart='train-loss']//button[.='+']")
    wait(lambda: words(charts, "train-loss") != steps)
    charts.click("//*[@data-chart='train-loss']//button[.='reset']")
    wait(lambda: words(charts, "train-loss") == steps)
    assert charts.messages() == []


def test_steps_are_whole_numbers(charts: Browser) -> None:
    ticks = [word for word in words(charts, "train-loss") if re.fullmatch(r"[\d.]+", word)]
    assert {"1", "2", "3"} <= set(ticks)
    below = charts.run(
        f"const plot = {CHART % 'train-loss'}; const bottom = Math.max(...[...plot.querySelectorAll('text')]"
        ".filter((text) => /^[0-9.]+$/.test(text.textContent)).map((text) => text.getBoundingClientRect().top)); "
        "return [...plot.querySelectorAll('text')].filter((text) => text.getBoundingClientRect().top > bottom - 2)"
        ".map((text) => text.textContent).filter((text) => text !== 'step')"
    )
    assert all(re.fullmatch(r"\d+", word) for word in below), below


MARKER = """
const ink = getComputedStyle(document.documentElement).getPropertyValue("--series-0").trim();
const boxes = [...%s.querySelectorAll("path")].filter((path) => path.getAttribute("fill") === ink)
  .map((path) => path.getBoundingClientRect());
const last = boxes.pop();
return [last.left + last.width / 2, last.top + last.height / 2];
"""
"""Where the first variant's last marker is."""


@pytest.mark.parametrize(("chart", "told"), [("parameters", "parameters, loss"), ("train-loss", "step ")])
def test_a_pointer_shows_values(charts: Browser, chart: str, told: str) -> None:
    charts.run(f"{CHART % chart}.scrollIntoView({{block: 'center'}})")
    x, y = charts.run(MARKER % (CHART % chart))
    said = f"return {CHART % chart}.querySelector('.bubble')?.innerText ?? ''"
    for away in (3, 0):
        charts.tools("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": x + away, "y": y})
    wait(lambda: told in charts.run(said))
    text = charts.run(said)
    assert re.search(r"separate\s+\d", text), text
    assert charts.messages() == []


def test_static_charts_are_printed(charts: Browser) -> None:
    seen = (
        "return ['.live', '.still'].map((kind) => [...document.querySelectorAll(kind)].some((each) => each.checkVisibility()))"
    )
    assert charts.run(seen) == [True, False]
    charts.tools("Emulation.setEmulatedMedia", {"media": "print"})
    assert charts.run(seen) == [False, True]
    charts.tools("Emulation.setEmulatedMedia", {"media": ""})


def test_static_charts_are_shown_where_scripts_are_disabled(page: Path, opened: Browser) -> None:
    opened.tools("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        opened.open(page)
        # Without scripts the driver cannot tell when the page is loaded, and it asks for the document at times of its own,
        # which gives each node a new nodeId: backendNodeId stays.
        written = len(re.findall(r'class="[^"]*\bstill\b', page.read_text()))
        wait(lambda: len(static_charts(document(opened))) == written)
        root = document(opened)
        assert not with_class(root, "live")
        box = opened.tools("DOM.getBoxModel", {"backendNodeId": static_charts(root)[0]["backendNodeId"]})
        assert box["model"]["width"] > 100
    finally:
        opened.tools("Emulation.setScriptExecutionDisabled", {"value": False})


def document(shown: Browser) -> dict[str, Any]:
    """The nodes of the page, read at once."""
    return dict(shown.tools("DOM.getDocument", {"depth": -1})["root"])


def below(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A node of a document and everything in it, in order."""
    yield node
    for child in node.get("children", []):
        yield from below(child)


def static_charts(root: dict[str, Any]) -> list[dict[str, Any]]:
    """The drawing of each static chart."""
    figures = (below(figure) for figure in with_class(root, "still"))
    return [drawing for nodes in figures if (drawing := next((node for node in nodes if node["nodeName"] == "svg"), None))]


def with_class(root: dict[str, Any], name: str) -> list[dict[str, Any]]:
    def classes(node: dict[str, Any]) -> list[str]:
        attributes = node.get("attributes", [])
        return str(dict(zip(attributes[::2], attributes[1::2], strict=True)).get("class", "")).split()

    return [node for node in below(root) if name in classes(node)]
