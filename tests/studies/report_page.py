"""What the tests of the report in a browser have in common."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pairform.experiments.report import report
from tests.browser import Browser
from tests.studies.small_study import run


def small_report(folder: Path) -> Path:
    """The page of a study with four variants, of which one diverges."""
    smaller = {"decoder": {"layer": {"branches": {"feed_forward": {"hidden": 4}}}}}
    diverges = {"training": {"optimizer": {"name": "sgd", "learning_rate": 1e30}, "steps": 6}}
    run(folder, {"variants": {"smaller": smaller, "diverges": diverges}, "seeds": [0, 1]}, jobs=2)
    return report(folder / "study")


def show_charts(shown: Browser) -> int:
    """Scroll to every chart, which draws it; their number."""
    count = int(shown.run("return document.querySelectorAll('[data-chart]').length"))
    for place in range(count):
        shown.run(f"document.querySelectorAll('[data-chart]')[{place}].scrollIntoView({{block: 'center'}})")
        wait(lambda: shown.run(f"return document.querySelectorAll('[data-chart]')[{place}].matches('.drawn')"))  # noqa: B023
    return count


def wait(happened: Callable[[], Any], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)
