"""The rounds of a study's trials: what is run next may depend on the results so far."""

from collections.abc import Collection, Iterator
from pathlib import Path

from pairform.experiments.results.records import Trial, TrialFolder, first_variant
from pairform.experiments.results.sweeps import read_sweeps, recipes_of
from pairform.experiments.statistics.intervals import FEWEST
from pairform.experiments.study.precision import precise
from pairform.experiments.study.seeds import SeedsUntil
from pairform.experiments.study.spec import StudySpec


def rounds(out: Path, study: StudySpec, planned: list[Trial], only: Collection[str] | None) -> Iterator[list[Trial]]:
    """The trials to run, and again with those that depend on the results of each round.

    If variants are tuned, the first round is the sweep, and the next ones retrain the variants whose sweep is complete. As long
    as the study's differences need more seeds, each round has one more. Of a study whose seeds are listed, and of chosen
    variants, there is one round apart from the sweep. There is no next round while trials of this one are left, as after the
    study's minutes.
    """
    seeds = study.seeds
    if study.tune:
        swept = [trial for trial in planned if trial.stage == "sweep"]
        yield swept
        recipes = recipes_of(out, read_sweeps(out), first_variant(out), planned)
        planned = [*swept, *(trial for trial in planned if recipes.get(trial.name))]
    if not isinstance(seeds, SeedsUntil):
        yield planned
        return
    for count in range(FEWEST, seeds.most + 1):
        trials = [trial for trial in planned if trial.stage == "sweep" or trial.seed < count]
        yield trials
        left = any(TrialFolder(out, trial.name).read().status not in ("done", "failed") for trial in trials)
        if left or only is not None or precise(out, seeds.until, count):
            return
