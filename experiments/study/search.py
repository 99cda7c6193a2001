"""Points of a grid too large to be run whole, chosen one after another by Optuna from what earlier ones came to."""

import json
import statistics
from collections import deque
from pathlib import Path
from typing import Any

from pairform.experiments.results.records import Trial, TrialFolder, result_of
from pairform.experiments.results.writing import write_json
from pairform.experiments.study.planning import make_variants, trials_for
from pairform.experiments.study.points import SUMMARY, Point, pick, read_points
from pairform.experiments.study.spec import SearchSpec, StudySpec
from pairform.experiments.study.variants import Variant, combination
from pairform.registry import PairformError, thaw
from pairform.training.data.batches import Contents, generator
from pairform.training.metrics import check_package

VARIANT = "variant"
ATTEMPTS = 16
"""How often Optuna is asked for a point that was not asked before; after that, chance chooses among those."""


class Search:
    """Hands out the trials of points, every seed of each. The points are kept in `search.json`, from which it goes on.

    Each choice depends on the search's seed and on the answers so far, so that with one job at a time a search that was
    interrupted comes to the same points. No point is asked twice. One that is no valid model is refused, and counts.
    """

    def __init__(self, study: StudySpec, settings: SearchSpec, source: Path, contents: Contents, out: Path) -> None:
        check_package("optuna", "search")
        self.study, self.settings, self.source, self.contents, self.out = study, settings, source, contents, out
        first = {path: values[0] for path, values in study.grid.items()}
        self.first = make_variants(study, source, contents, [combination(study, name, first) for name in study.variants])
        self.choices = {VARIANT: tuple(study.variants)}
        self.choices |= {path: tuple(json.dumps(thaw(value)) for value in values) for path, values in study.grid.items()}
        self.variants: dict[str, Variant] = {}
        self.ready: deque[str] = deque()
        self.points = [self.plan(params) for params in read_points(out, self.choices, settings.measure)]

    @property
    def planned(self) -> list[Trial]:
        """The trials of all points that were asked for, point by point: numbers stay when points are added."""
        place = {name: place for place, name in enumerate(self.variants)}
        found = trials_for(self.study, self.contents, list(self.variants.values()))
        found.sort(key=lambda trial: place[trial.variant])
        return [trial.model_copy(update={"number": number}) for number, trial in enumerate(found)]

    @property
    def most(self) -> list[Trial]:
        """As many trials as there can be."""
        return trials_for(self.study, self.contents, self.first[:1]) * self.study.points

    def begin(self, waiting: list[str]) -> None:
        """Run first what was left by an earlier run."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.optuna = optuna.create_study(direction="minimize" if self.settings.measure == "loss" else "maximize")
        for point in self.points:
            self.enter(point)
        self.ready.extend(waiting)
        self.answer()

    def next(self) -> str | None:
        """The name of a trial to run; none while answers are to be waited for, or at the end."""
        while not self.ready and len(self.points) < self.study.points:
            self.ask()
        return self.ready.popleft() if self.ready else None

    def ended(self, trial: Trial) -> None:
        self.answer()

    def ask(self) -> None:
        """Choose a point and plan its trials."""
        point = self.plan(self.choose())
        self.points.append(point)
        self.enter(point)
        self.answer()
        planned = {trial.name: trial for trial in self.planned}
        for name in point.trials:
            if not TrialFolder(self.out, name).there:
                TrialFolder(self.out, name).write(planned[name])
        self.ready.extend(point.trials)

    def choose(self) -> dict[str, str]:
        """What Optuna proposes, unless it was asked before."""
        from optuna.samplers import RandomSampler, TPESampler
        from optuna.trial import TrialState

        asked = [point.params for point in self.points]
        sampler = TPESampler if self.settings.sampler == "tpe" else RandomSampler
        for attempt in range(ATTEMPTS):
            self.optuna.sampler = sampler(seed=int(generator(self.settings.seed, len(asked), attempt).integers(2**31)))
            proposed = self.optuna.ask(self.distributions)
            self.optuna.tell(proposed, state=TrialState.FAIL)  # entered anew once it is planned
            if proposed.params not in asked:
                return proposed.params
        return pick(self.choices, asked, generator(self.settings.seed, len(asked), ATTEMPTS))

    @property
    def distributions(self) -> dict[str, Any]:
        from optuna.distributions import CategoricalDistribution

        return {name: CategoricalDistribution(values) for name, values in self.choices.items()}

    def enter(self, point: Point) -> None:
        """Tell Optuna that a point is at work; refused ones have failed."""
        from optuna.trial import TrialState, create_trial

        state = TrialState.RUNNING if point.refused is None else TrialState.FAIL
        point.number = len(self.optuna.get_trials(deepcopy=False))
        self.optuna.add_trial(create_trial(state=state, params=point.params, distributions=self.distributions))

    def plan(self, params: dict[str, str]) -> Point:
        """The trials of a point, or why it is refused."""
        values = {path: json.loads(value) for path, value in params.items() if path != VARIANT}
        chosen = combination(self.study, params[VARIANT], values)
        try:
            (variant,) = make_variants(self.study, self.source, self.contents, [chosen])
            self.variants[variant.name] = variant
            return Point(params, [trial.name for trial in trials_for(self.study, self.contents, [variant])])
        except PairformError as error:
            return Point(params, refused=str(error))

    def answer(self) -> None:
        """Tell Optuna the mean over seeds of each point whose trials all ended; one with a failed trial has failed."""
        from optuna.trial import TrialState

        for point in self.points:
            if point.ended:
                continue
            trials = [TrialFolder(self.out, name) for name in point.trials]
            states = {trial.read().status if trial.there else "planned" for trial in trials}
            if states == {"done"}:
                point.value = self.mean(point)
            if point.value is not None:
                self.optuna.tell(point.number, point.value)
            elif states <= {"done", "failed"}:
                self.optuna.tell(point.number, state=TrialState.FAIL)
            else:
                continue
            point.ended = True
        entries = [
            {"point": point.params, self.settings.measure: point.value, "refused": point.refused} for point in self.points
        ]
        write_json(self.out / SUMMARY, entries)

    def mean(self, point: Point) -> float | None:
        """Over the seeds of a point whose trials are done; None where one of them did not measure it."""
        results = [result_of(self.out, name).get(self.settings.measure) for name in point.trials]
        known = [value for value in results if value is not None]
        return statistics.fmean(known) if len(known) == len(results) else None
