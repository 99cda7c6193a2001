"""The report as a browser shows it."""

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pairform.experiments.report import report
from tests.browser import DRIVER, ENTER, Browser, browser
from tests.studies.small_study import run, write_results

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
CHART = "document.querySelector('[data-chart=%s] .plot')"


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


def show_charts(shown: Browser) -> int:
    """Scroll to every chart, which draws it; their number."""
    count = int(shown.run("return document.querySelectorAll('[data-chart]').length"))
    for place in range(count):
        shown.run(f"document.querySelectorAll('[data-chart]')[{place}].scrollIntoView({{block: 'center'}})")
        wait(lambda: shown.run(f"return document.querySelectorAll('[data-chart]')[{place}].matches('.drawn')"))  # noqa: B023
    return count


def wait(happened: Callable[[], Any], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)


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
    names = ["parameters", "train-loss"]
    before = [drawing(charts, name) for name in names]
    button = "(//ul[@class='legend'])[1]//button[contains(., 'smaller')]"
    charts.click(button)
    hidden = [drawing(charts, name) for name in names]
    assert [len(after) < len(old) for after, old in zip(hidden, before, strict=True)] == [True, True]
    pressed = "return [...document.querySelectorAll('[data-name=smaller] button')].map((each) => each.ariaPressed)"
    assert charts.run(pressed) == ["false", "false"]
    charts.press(button, ENTER)
    assert charts.run(pressed) == ["true", "true"]
    assert [len(drawing(charts, name)) for name in names] == [len(old) for old in before]
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


def test_a_link_unfolds_a_variant(page: Path, opened: Browser) -> None:
    opened.open(page)
    opened.click(f"{RESULTS}//a[.='merged']")
    shown = "return [...document.querySelectorAll('.variant')].map((each) => each.checkVisibility())"
    wait(lambda: opened.run(shown) == [False, True, False, False])
    assert opened.run("return document.querySelector('#variant-2 svg.diagram, #variant-2 svg').checkVisibility()")


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
    assert opened.run("return [window.hacked ?? 0, document.querySelectorAll('img').length, document.scripts.length]") == [
        0,
        0,
        4,
    ]
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


def luminance(colour: str) -> float:
    """Relative, as WCAG 2.2 defines it for sRGB."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """From 1 to 21; text of common size needs 4.5 (WCAG 2.2, criterion 1.4.3)."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)
