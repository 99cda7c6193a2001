"""A study that is watched while it runs."""

import time
from collections.abc import Iterator
from pathlib import Path

from pairform.experiments.results.records import LOCK, STUDY, trials_of
from pairform.registry.run_folders import is_locked

SECONDS = 5.0
FINAL = ("done", "failed")


def changes(study: Path, seconds: float = SECONDS) -> Iterator[None]:
    """Yield now and whenever the study's trials have changed, until all of them have ended and no run adds others.

    seconds: between two looks at the trials.

    Raises:
        OutputError: there is no study.
    """
    seen = None
    while True:
        running, trials = is_locked(study / LOCK), trials_of(study)  # in this order: the last change is not missed
        now = ([(trial.name, trial.status, trial.attempts) for trial in trials], (study / STUDY).stat().st_mtime_ns)
        if now != seen:
            yield
            seen = now
        if not running and all(trial.status in FINAL for trial in trials):
            return
        time.sleep(seconds)
