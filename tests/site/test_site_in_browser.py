"""The site as a browser shows it: narrow and wide, dark and light."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import DRIVER, Browser, browser

pytestmark = pytest.mark.skipif(DRIVER is None, reason="no chromedriver to open the pages with")
PAGES = [
    "docs/index",
    "README",
    "docs/convert",
    "docs/blocks",
    "docs/reference/initialisation",
    "docs/reference/command-line",
    "docs/reference/study-fields",
    "source/blocks/norms.py",
    "search",
]
LARGE = ["docs/blocks", "docs/reference/command-line"]
"""Pages of which axe looks at every word for minutes; others are made of the same parts."""
SCREENS = [(375, False), (375, True), (1400, False), (1400, True)]


@pytest.fixture(scope="module")
def opened() -> Iterator[Browser]:
    with browser() as found:
        yield found


@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_the_screen(site: Path, opened: Browser, name: str) -> None:
    """Without scrolling sideways, but for tables and code, which scroll inside the page; and without errors."""
    for width, dark in SCREENS:
        opened.show(width=width, dark=dark)
        opened.open(site / f"{name}.html")
        assert opened.run("return document.documentElement.scrollWidth") == width
    assert opened.messages() == []


def test_the_search_finds_a_function(site: Path, opened: Browser) -> None:
    opened.show(width=1400)
    opened.open(site / "docs" / "index.html")
    opened.run(f"location.href = {json.dumps((site / 'search.html').as_uri() + '?q=load_spec')}")
    found = "return [...document.querySelectorAll('#search-results a')].map((link) => link.getAttribute('href'))"
    for _ in range(200):
        if links := opened.run(found):
            break
    assert any("docs/reference/specs.html" in link for link in links)


@pytest.mark.skipif("AXE_CORE" not in os.environ, reason="AXE_CORE does not name the axe.min.js of the npm package axe-core")
@pytest.mark.parametrize("name", [page for page in PAGES if page not in LARGE])
def test_axe_finds_nothing_serious(site: Path, opened: Browser, name: str) -> None:
    for width, dark in SCREENS:
        opened.show(width=width, dark=dark)
        opened.open(site / f"{name}.html")
        opened.tools("Runtime.evaluate", {"expression": Path(os.environ["AXE_CORE"]).read_text("utf-8")})
        run_axe = {
            "expression": "axe.run().then((found) => JSON.stringify(found))",
            "awaitPromise": True,
            "returnByValue": True,
        }
        found = json.loads(opened.tools("Runtime.evaluate", run_axe)["result"]["value"])
        assert len(found["passes"]) > 20
        bad = [each for each in found["violations"] if each["impact"] in ("serious", "critical")]
        assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in bad] == []
