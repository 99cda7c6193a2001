"""A report that follows a study while it runs."""

from collections.abc import Callable
from pathlib import Path

from pairform.experiments.report.page import report
from pairform.experiments.results.following import SECONDS, changes


def watch(directory: Path, written: Callable[[Path], None], seconds: float = SECONDS) -> None:
    """Write the study's report now and whenever its trials have changed, until all of them have ended.

    Args:
        directory: The study's folder.
        written: Called with the path of each page that was written.
        seconds: Between two looks at the trials.

    Raises:
        OutputError: there is no study, or the page cannot be written.
    """
    for _ in changes(directory, seconds):
        written(report(directory))
