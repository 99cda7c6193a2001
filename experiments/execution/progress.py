"""How far a run of a study is."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pairform.experiments.results.records import Trial, result_of


@dataclass(frozen=True)
class Ended:
    """A trial that has ended.

    done:         trials of this run that have ended.
    total:        trials of this run as known now: those that depend on results, such as seeds that are added, come on top.
    seconds_left: until `total` have ended, at the rate so far; None for the last.
    loss:         of validation; None if the trial has failed.
    """

    trial: Trial
    done: int
    total: int
    seconds_left: float | None
    loss: float | None


Report = Callable[[Ended], None]
"""Callback that receives each trial as it ends."""


class Progress:
    """Counts the trials of a run. study: the study's folder; report: told of each trial that ends."""

    def __init__(self, study: Path, report: Report) -> None:
        self.study, self.report = study, report
        self.done, self.total = 0, 0
        self.start = time.monotonic()

    def expect(self, trials: int) -> None:
        """So many more trials will run."""
        self.total += trials

    def ended(self, trial: Trial) -> None:
        self.done += 1
        left = max(0, self.total - self.done)
        rate = (time.monotonic() - self.start) / self.done
        loss = result_of(self.study, trial.name).get("loss") if trial.status == "done" else None
        self.report(Ended(trial, self.done, max(self.total, self.done), rate * left if left else None, loss))
