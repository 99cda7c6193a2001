"""Search of a grid too large to run in full: Optuna proposes one point after another from the results of earlier ones."""

import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution
from optuna.samplers import RandomSampler, TPESampler
from optuna.trial import TrialState, create_trial

from pairform.experiments.results.records import Trial, TrialFolder, result_of
from pairform.experiments.study.contents import StudyContents
from pairform.experiments.study.planning import make_variants, trials_for
from pairform.experiments.study.spec import SearchSpec, StudySpec
from pairform.experiments.study.variants import Variant, combination
from pairform.registry import OutputError, PairformError, Problem, SpecError, parse_json, read_text, shorten, thaw
from pairform.registry.run_folders import write_json
from pairform.training.data.batches import generator

SUMMARY = "search.json"
Choices = Mapping[str, Sequence[str]]
"""The variants' names, and the grid's values as JSON by path."""
VARIANT = "variant"
ATTEMPTS = 16
"""Proposals by Optuna that may repeat earlier points before a random new one is taken."""


@dataclass
class Point:
    """One value of each choice.

    trials:  names of its trials.
    refused: why it is not a valid model.
    number:  Optuna's trial number.
    value:   the measure's mean over seeds, once all trials are done.
    ended:   whether nothing remains to be told to Optuna: a refused point was never started.
    """

    params: dict[str, str]
    trials: list[str] = field(default_factory=list)
    refused: str | None = None
    number: int = 0
    value: float | None = None
    ended: bool = False


class Search:
    """A queue of the trials of proposed points, with every seed. Points are recorded in `search.json`, to resume from.

    Each proposal depends only on the search's seed and the results so far, so that with one job at a time an interrupted search
    reaches the same points. No point is proposed twice. A point that is not a valid model is recorded as refused, and counts.
    """

    def __init__(self, study: StudySpec, settings: SearchSpec, source: Path, contents: StudyContents, out: Path) -> None:
        self.study, self.settings, self.source, self.contents, self.out = study, settings, source, contents, out
        first = {path: values[0] for path, values in study.grid.items()}
        # every variant at the first point: errors of the base and the patches are raised before the first trial
        self.first = make_variants(study, source, contents, [combination(study, name, first) for name in study.arms])
        self.choices = {VARIANT: tuple(study.arms)}
        self.choices |= {path: tuple(json.dumps(thaw(value)) for value in values) for path, values in study.grid.items()}
        self.variants: dict[str, Variant] = {}
        self.points = [self.plan(params) for params in read_points(out, self.choices, settings.measure)]

    @property
    def planned(self) -> list[Trial]:
        """The trials of all proposed points, point by point, so that a trial's number does not change as points are added."""
        order = {name: index for index, name in enumerate(self.variants)}
        trials = trials_for(self.study, self.contents, list(self.variants.values()))
        trials.sort(key=lambda trial: order[trial.variant])
        return [trial.model_copy(update={"number": number}) for number, trial in enumerate(trials)]

    @property
    def most(self) -> list[Trial]:
        """As many trials as the search can run, all like the first: an estimate of the disk space."""
        return trials_for(self.study, self.contents, self.first[:1]) * self.study.points

    @property
    def left(self) -> int:
        """Number of trials that are not done, those of points that are not chosen yet included."""
        known = [trial for trial in self.planned if TrialFolder(self.out, trial.name).exists]
        ended = sum(TrialFolder(self.out, trial.name).read().status in ("done", "failed") for trial in known)
        return self.study.trials - ended

    def queue(self, waiting: list[str]) -> Iterator[str]:
        """Names of the trials to run: those `waiting` of earlier points, then those of new points.

        A point is proposed when its first trial is asked for. Call `update` when a trial has ended.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        better = self.study.qualities[self.settings.measure]
        self.optuna = optuna.create_study(direction="minimize" if better == "lower" else "maximize")
        for point in self.points:
            self.register(point)
        self.update()
        yield from waiting
        while len(self.points) < self.study.points:
            yield from self.propose()

    def propose(self) -> list[str]:
        """Choose a point and plan its trials; their names."""
        point = self.plan(self.choose())
        self.points.append(point)
        self.register(point)
        self.update()
        planned = {trial.name: trial for trial in self.planned}
        for name in point.trials:
            if not TrialFolder(self.out, name).exists:
                TrialFolder(self.out, name).write(planned[name])
        return point.trials

    def choose(self) -> dict[str, str]:
        """A point that was not proposed before: Optuna's choice, or after `ATTEMPTS` repeated ones a random point."""
        known = [point.params for point in self.points]
        sampler = TPESampler if self.settings.sampler == "tpe" else RandomSampler
        for attempt in range(ATTEMPTS):
            self.optuna.sampler = sampler(seed=int(generator(self.settings.seed, len(known), attempt).integers(2**31)))
            proposed = self.optuna.ask(self.distributions)
            self.optuna.tell(proposed, state=TrialState.FAIL)  # registered again once it is planned
            if proposed.params not in known:
                return proposed.params
        return pick(self.choices, known, generator(self.settings.seed, len(known), ATTEMPTS))

    @property
    def distributions(self) -> dict[str, Any]:
        return {name: CategoricalDistribution(values) for name, values in self.choices.items()}

    def register(self, point: Point) -> None:
        """Tell Optuna that a point is running, or failed if it is refused."""
        state = TrialState.RUNNING if point.refused is None else TrialState.FAIL
        point.number = len(self.optuna.get_trials(deepcopy=False))
        self.optuna.add_trial(create_trial(state=state, params=point.params, distributions=self.distributions))

    def plan(self, params: dict[str, str]) -> Point:
        """The point with its trials, or with the reason why it is refused."""
        values = {path: json.loads(value) for path, value in params.items() if path != VARIANT}
        chosen = combination(self.study, params[VARIANT], values)
        try:
            (variant,) = make_variants(self.study, self.source, self.contents, [chosen])
            self.variants[variant.name] = variant
            return Point(params, [trial.name for trial in trials_for(self.study, self.contents, [variant])])
        except PairformError as error:
            return Point(params, refused=str(error), ended=True)

    def update(self) -> None:
        """Tell Optuna each point's mean over seeds, or that a trial failed, once all have ended; write `search.json`."""
        for point in self.points:
            if point.ended:
                continue
            trials = [TrialFolder(self.out, name) for name in point.trials]
            states = {trial.read().status if trial.exists else "planned" for trial in trials}
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
        """The measure's mean over the seeds of a point whose trials are done; None if a trial did not measure it."""
        values = [result_of(self.out, name).get(self.settings.measure) for name in point.trials]
        return None if None in values else statistics.fmean(value for value in values if value is not None)


def read_points(out: Path, choices: Choices, measure: str) -> list[dict[str, str]]:
    """The points of an earlier run, in order; `OutputError` if it searched other choices or for another measure."""
    file = out / SUMMARY
    if not file.exists():
        return []
    try:
        entries: Any = parse_json(read_text(file))
    except (OSError, ValueError, RecursionError) as error:
        raise SpecError(Problem(str(file), str(error), "the points of a search, as JSON")) from None
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and isinstance(entry.get("point"), dict) for entry in entries
    ):
        raise SpecError(Problem(str(file), shorten(entries), "a list of objects with a point each"))
    found: list[dict[str, str]] = []
    for entry in entries:
        point = entry["point"]
        if set(point) != set(choices) or any(value not in choices[name] for name, value in point.items()):
            raise other_search(out, "a search in another grid or among other variants")
        if measure not in entry:
            raise other_search(out, "a search for another measure")
        if point not in found:  # earlier versions proposed some points twice
            found.append(point)
    return found


def other_search(out: Path, found: str) -> OutputError:
    return OutputError(Problem(str(out), found, "this study's", "Choose another folder with --out."))


def pick(choices: Choices, known: Sequence[dict[str, str]], random: np.random.Generator) -> dict[str, str]:
    """A new point: a random one, or the first unknown one after it in the grid's order."""
    total = math.prod(map(len, choices.values()))
    index = int(random.integers(min(total, 2**62)))  # numpy draws 64-bit integers; a grid may be larger
    while (point := point_at(choices, index)) in known:
        index = (index + 1) % total
    return point


def point_at(choices: Choices, index: int) -> dict[str, str]:
    """The point of that number in the grid; the last choice changes fastest."""
    point: dict[str, str] = {}
    for name, values in reversed(list(choices.items())):
        index, digit = divmod(index, len(values))
        point[name] = values[digit]
    return {name: point[name] for name in choices}
