"""A request that a study's run end, as a file in its folder, so that any process that can write there can make it."""

import contextlib
import time
from enum import StrEnum
from pathlib import Path

from pairform.experiments.results.records import LOCK, STOP, trials_of
from pairform.registry import OutputError, Problem, read_json
from pairform.registry.run_folders import check_links, is_locked, write_json

PAUSE = 0.2
"""Seconds between two looks at the folder."""


class Stop(StrEnum):
    """NOW ends the running trials, which a later run resumes from their last checkpoints; AFTER_TRIALS lets them finish."""

    NOW = "now"
    AFTER_TRIALS = "after_trials"


def request_stop(study: Path, stop: Stop = Stop.NOW) -> None:
    """Ask the run of a study to end, and wait until it has.

    Raises:
        OutputError: the folder is no study, or no run is working on it.
    """
    trials_of(study)
    check_links(study)
    if not is_locked(study / LOCK):
        raise OutputError(Problem(str(study), "no run of this study", "a study that `pairform study run` is working on"))
    write_json(study / STOP, {"stop": stop})
    while is_locked(study / LOCK):
        time.sleep(PAUSE)
    withdraw(study)  # a run that was killed left it


def requested(study: Path) -> Stop | None:
    """How the study's run is asked to end; None if it is not."""
    file = study / STOP
    if not file.exists():
        return None
    return Stop.AFTER_TRIALS if read_json(file).get("stop") == Stop.AFTER_TRIALS else Stop.NOW


def withdraw(study: Path) -> None:
    """Remove a request."""
    with contextlib.suppress(FileNotFoundError):
        (study / STOP).unlink()
