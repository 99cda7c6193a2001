"""The report's charts as a browser shows them: what can be done with them, on paper, and without scripts."""

import re
from pathlib import Path

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
        root = opened.tools("DOM.getDocument", {})["root"]["nodeId"]
        live, still = (
            opened.tools("DOM.querySelector", {"nodeId": root, "selector": selector})["nodeId"]
            for selector in (".live", ".still svg")
        )
        assert not live
        assert opened.tools("DOM.getBoxModel", {"nodeId": still})["model"]["width"] > 100
    finally:
        opened.tools("Emulation.setScriptExecutionDisabled", {"value": False})
