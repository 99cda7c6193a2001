"""Points of a grid too large to be run whole, chosen one after another by Optuna from what earlier ones came to."""

import json
import statistics
from collections import deque
from pathlib import Path
from typing import Any

from pairform.experiments.batches import Contents, generator
from pairform.experiments.logs import check_package
from pairform.experiments.planning import make_variants, trials_for
from pairform.experiments.records import STUDY, Trial, TrialFolder, result_of, write_json
from pairform.experiments.study_spec import SearchSpec, StudySpec
from pairform.experiments.variants import Variant, combination
from pairform.registry import OutputError, PairformError, Problem, thaw

JOURNAL, SUMMARY = "search.journal", "search.json"
VARIANT = "variant"


class Search:
    """Hands out the trials of points, every seed of each. What was asked and answered is in a journal, from which it goes on.

    Each choice depends on the search's seed and on the answers so far, so that with one job at a time a search that was killed
    comes to the same points. A point that is no valid model is refused, and counts.
    """

    def __init__(self, study: StudySpec, settings: SearchSpec, source: Path, contents: Contents, out: Path) -> None:
        check_package("optuna", "search")
        self.study, self.settings, self.source, self.contents, self.out = study, settings, source, contents, out
        first = {path: values[0] for path, values in study.grid.items()}
        self.first = make_variants(study, source, contents, [combination(study, name, first) for name in study.variants])
        self.choices = {VARIANT: tuple(study.variants)}
        self.choices |= {path: tuple(json.dumps(thaw(value)) for value in values) for path, values in study.grid.items()}
        self.variants: dict[str, Variant] = {}
        self.open: dict[int, list[str]] = {}
        self.ready: deque[str] = deque()
        self.refused: dict[int, str] = {}
        if (out / JOURNAL).exists():
            self.check_grid()
            self.load()

    @property
    def planned(self) -> list[Trial]:
        """The trials of all points that were asked for."""
        return trials_for(self.study, self.contents, list(self.variants.values()))

    @property
    def most(self) -> list[Trial]:
        """As many trials as there can be."""
        return trials_for(self.study, self.contents, self.first[:1]) * self.settings.points

    def load(self) -> None:
        """Open the journal, and plan again what stands in it."""
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.optuna = optuna.create_study(
            study_name=self.study.name,
            storage=JournalStorage(JournalFileBackend(str(self.out / JOURNAL))),
            direction="minimize" if self.settings.measure == "loss" else "maximize",
            load_if_exists=True,
        )
        for asked in self.optuna.get_trials():
            self.take(asked.number, asked.params)
            if asked.state.is_finished():
                self.open.pop(asked.number, None)

    def check_grid(self) -> None:
        """Whether the journal in the folder is of this grid; points may be added."""
        kept = StudySpec.model_validate_json((self.out / STUDY).read_text("utf-8"))
        if (kept.grid, [*kept.variants]) != (self.study.grid, [*self.study.variants]):
            found = "a search in another grid or among other variants"
            raise OutputError(Problem(str(self.out), found, "this study's", "Choose another folder with --out."))

    def begin(self, waiting: list[str]) -> None:
        """Run first what was left by an earlier run."""
        if not hasattr(self, "optuna"):
            self.load()
        self.ready.extend(waiting)
        self.answer()

    def next(self) -> str | None:
        """The name of a trial to run; none while answers are to be waited for, or at the end."""
        while not self.ready and (number := len(self.optuna.get_trials(deepcopy=False))) < self.settings.points:
            self.ask(number)
        return self.ready.popleft() if self.ready else None

    def ended(self, trial: Trial) -> None:
        self.answer()

    def ask(self, number: int) -> None:
        from optuna.distributions import CategoricalDistribution
        from optuna.samplers import RandomSampler, TPESampler

        sampler = TPESampler if self.settings.sampler == "tpe" else RandomSampler
        self.optuna.sampler = sampler(seed=int(generator(self.settings.seed, number).integers(2**31)))
        asked = self.optuna.ask({name: CategoricalDistribution(values) for name, values in self.choices.items()})
        self.take(asked.number, asked.params)
        new = [trial for trial in self.planned if not TrialFolder(self.out, trial.name).there]
        for trial in new:
            TrialFolder(self.out, trial.name).write(trial)
        self.ready.extend(trial.name for trial in new)
        self.answer()

    def take(self, number: int, params: dict[str, Any]) -> None:
        """Plan the trials of a point, or refuse it."""
        try:
            self.open[number] = self.plan(params)
        except PairformError as error:
            self.refused[number] = str(error)

    def plan(self, params: dict[str, Any]) -> list[str]:
        """The names of a point's trials."""
        point = {path: json.loads(value) for path, value in params.items() if path != VARIANT}
        (variant,) = make_variants(self.study, self.source, self.contents, [combination(self.study, params[VARIANT], point)])
        self.variants.setdefault(variant.name, variant)
        return [trial.name for trial in self.planned if trial.variant == variant.name]

    def answer(self) -> None:
        """Tell Optuna the mean over seeds of each point whose trials all ended; one with a failed trial has failed."""
        from optuna.trial import TrialState

        for number in self.refused:
            self.optuna.tell(number, state=TrialState.FAIL, skip_if_finished=True)
        for number, names in list(self.open.items()):
            trials = [TrialFolder(self.out, name).read() for name in names]
            if all(trial.status == "done" for trial in trials):
                self.optuna.tell(number, statistics.fmean(result_of(self.out, name)[self.settings.measure] for name in names))
            elif all(trial.status in ("done", "failed") for trial in trials):
                self.optuna.tell(number, state=TrialState.FAIL)
            else:
                continue
            del self.open[number]
        write_json(self.out / SUMMARY, self.summary())

    def summary(self) -> list[dict[str, Any]]:
        """What was asked, in order, and what it came to."""
        return [
            {"point": asked.params, self.settings.measure: asked.value, "refused": self.refused.get(asked.number)}
            for asked in self.optuna.get_trials(deepcopy=False)
        ]
