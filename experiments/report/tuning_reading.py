"""Reading what a study's folder has of the tuning of its variants, for its report."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pairform.experiments.results.records import Trial, trials_of
from pairform.experiments.results.summary import summarise
from pairform.experiments.results.sweeps import Sweep, sweeps_of
from pairform.experiments.study.factor_results import FactorResults, factor_results


@dataclass(frozen=True)
class Tuning:
    """What a report adds of a study that tunes its variants.

    sweeps:        by variant.
    tuned, shared: rows of the study's summary, of each variant at its own best setting, and at that of the first.
    factors:       their effects at the first one's setting; none in a study without factors.
    trials:        all of the study, those of the sweep included.
    """

    sweeps: dict[str, Sweep]
    tuned: dict[str, dict[str, Any]]
    shared: dict[str, dict[str, Any]]
    factors: list[FactorResults]
    trials: list[Trial]


def read_tuning(folder: Path) -> Tuning | None:
    """The tuning of a study; None if it tunes nothing."""
    trials = trials_of(folder)
    sweeps = sweeps_of(folder, trials)
    if not sweeps:
        return None
    tuned, shared = ({row["variant"]: row for row in rows} for rows in (summarise(folder), summarise(folder, "same_recipe")))
    return Tuning(sweeps, tuned, shared, factor_results(folder, recipe="same_recipe"), trials)
