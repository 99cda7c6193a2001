"""A report that follows a study while it runs."""

import time
from collections.abc import Callable
from pathlib import Path

from pairform.experiments.report.page import report
from pairform.experiments.results.records import LOCK, STUDY, trials_of
from pairform.registry.run_folders import is_locked

SECONDS = 5.0
"""Between two looks at the trials."""
FINAL = {"done", "failed"}


def watch(directory: Path, written: Callable[[Path], None], seconds: float = SECONDS) -> None:
    """Write the study's report now and whenever its trials have changed, until all of them have ended.

    While a run holds the study's folder it may add trials, so that the report follows it to its end.

    Args:
        directory: The study's folder.
        written: Called with the path of each page that was written.
        seconds: Between two looks at the trials.

    Raises:
        OutputError: there is no study, or the page cannot be written.
    """
    seen = None
    while True:
        running = is_locked(directory / LOCK)
        trials = trials_of(directory)
        now = ([(trial.name, trial.status, trial.attempts) for trial in trials], (directory / STUDY).stat().st_mtime_ns)
        if now != seen:
            written(report(directory))
            seen = now
        if not running and all(trial.status in FINAL for trial in trials):
            return
        time.sleep(seconds)
