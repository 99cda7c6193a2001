"""A study's folder as its report tells of it."""

import statistics
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pairform.experiments.results.records import (
    ENVIRONMENT,
    STUDY,
    TRIALS,
    Match,
    Trial,
    measurable,
    result_of,
    trials_of,
)
from pairform.experiments.results.summary import caution, summarise
from pairform.experiments.study.spec import StudySpec
from pairform.registry import OutputError, Problem, difference, open_regular, parse_json, read_json, thaw
from pairform.training.metrics import METRICS

LINE_BYTES = 1 << 16
"""Of a line of metrics at most; a longer one is none."""
LAST_STEP = 1 << 53
"""Whole numbers beyond it are no floats, which plots are made of."""
CURVES = (("train", "loss"), ("train", "auxiliary_loss"), ("valid", "loss"), ("valid", "accuracy"))


@dataclass(frozen=True)
class Measured:
    """A number's mean over so many seeds, and half of its confidence interval's width; None for fewer than two seeds."""

    mean: float
    half_width: float | None
    seeds: int


@dataclass(frozen=True)
class Curve:
    """A number as training goes on: over the seeds its mean, the lowest and the highest."""

    steps: list[int]
    mean: list[float]
    low: list[float]
    high: list[float]


@dataclass(frozen=True)
class Variant:
    """The trials of one variant.

    differences: JSON path -> (the base's value, this variant's), `training` among them; None stands for absent.
    match:       how near its size is to the first variant's, where the study scales variants.
    seeds:       what each seed that is done measured.
    change:      of the loss against the first variant at the same point of the grid, seed by seed; None for the first itself.
    unread:      how many lines of metrics could not be read, by trial.
    rank:        its place by loss, variants with failed seeds last; None while trials are still to end.
    """

    name: str
    trials: list[Trial]
    rank: int | None
    differences: dict[str, tuple[Any, Any]]
    match: Match | None
    seeds: dict[int, dict[str, Any]]
    measured: dict[str, Measured]
    change: Measured | None
    curves: dict[tuple[str, str], Curve]
    unread: dict[str, int]

    @property
    def complete(self) -> bool:
        """Whether every seed is done, so that its means can be compared with those of other variants."""
        return len(self.seeds) == len(self.trials)

    @property
    def progress(self) -> str:
        """As in `fast (1 of 3 seeds)`."""
        return f"{self.name} ({len(self.seeds)} of {len(self.trials)} seeds)"

    @property
    def matched(self) -> str:
        """How near its size is to the first variant's, in a sentence."""
        if self.match is None:
            return ""
        allowed = "" if self.match.tolerance is None else f", within the study's tolerance of {self.match.tolerance:.2%}"
        sizes = f"{self.match.found:,} {self.match.by} against {self.match.wanted:,}"
        return f"Scaled towards the size of the first variant: {sizes}, a difference of {self.match.difference:+.2%}{allowed}."


@dataclass(frozen=True)
class Report:
    """All that a report shows."""

    study: StudySpec
    variants: list[Variant]
    environment: dict[str, Any]
    caution: str

    @property
    def first(self) -> str:
        """The variant that the others are compared with."""
        return next(iter(self.study.variants))

    @property
    def unread(self) -> dict[str, int]:
        """How many lines of metrics could not be read, by trial."""
        return {name: count for variant in self.variants for name, count in variant.unread.items()}

    @property
    def trials(self) -> list[Trial]:
        return sorted((trial for variant in self.variants for trial in variant.trials), key=lambda trial: trial.number)


def read_report(folder: Path) -> Report:
    """Raises `OutputError` where `folder` holds no study."""
    trials = sorted(trials_of(folder), key=lambda trial: trial.number)
    study = StudySpec.read(read_json(folder / STUDY))
    groups: dict[str, list[Trial]] = defaultdict(list)
    for trial in trials:
        groups[trial.variant].append(trial)
    rows = summarise(folder)
    variants = [read_variant(folder, study, groups[row["variant"]], row) for row in rows]
    file = folder / ENVIRONMENT
    return Report(study, variants, read_json(file) if file.is_file() else {}, caution(rows))


def read_variant(folder: Path, study: StudySpec, trials: list[Trial], row: dict[str, Any]) -> Variant:
    """row: what the study's summary says of this variant."""
    done = [trial for trial in trials if trial.status == "done"]
    metrics = {trial.name: read_metrics(folder / TRIALS / trial.name / METRICS) for trial in done}
    change = row.get("difference", {}).get("loss")
    return Variant(
        name=row["variant"],
        trials=trials,
        rank=row["rank"],
        differences=differences(study, trials[0]),
        match=trials[0].match,
        seeds={trial.seed: result_of(folder, trial.name) for trial in done},
        measured={key: Measured(**found) for key, found in row["results"].items()},
        change=Measured(**change) if change else None,
        curves=read_curves([line for lines, _ in metrics.values() for line in lines]),
        unread={name: count for name, (_, count) in metrics.items() if count},
    )


def differences(study: StudySpec, trial: Trial) -> dict[str, tuple[Any, Any]]:
    """Where a trial differs from the study's base and its settings of training."""
    found = difference(thaw(study.base), thaw(trial.spec))
    return found | difference(study.training.document(), trial.training.document(), "training")


def read_curves(lines: list[dict[str, Any]]) -> dict[tuple[str, str], Curve]:
    """What some trials logged, by split and name."""
    found: dict[tuple[str, str], Curve] = {}
    for split, name in CURVES:
        at: dict[int, list[float]] = defaultdict(list)
        for line in lines:
            if line.get("split") == split and measurable(line.get(name)):
                at[line["step"]].append(line[name])
        if at:
            steps = sorted(at)
            values = [at[step] for step in steps]
            means = [statistics.fmean(seen) for seen in values]
            found[split, name] = Curve(steps, means, list(map(min, values)), list(map(max, values)))
    return found


def read_metrics(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The lines of a trial's metrics, and how many more are no metrics: cut off where a disk was full or a copy broken off."""
    found: list[dict[str, Any]] = []
    unread = 0
    if not path.exists():
        return found, unread
    try:
        with open_regular(path) as file:
            while line := file.readline(LINE_BYTES):
                try:
                    value = parse_json(line.decode("utf-8"))
                except (ValueError, RecursionError):
                    value = None
                if isinstance(value, dict) and type(step := value.get("step")) is int and 0 <= step <= LAST_STEP:
                    found.append(value)
                elif line.strip():
                    unread += 1
    except OSError as error:
        raise OutputError(Problem(str(path), error.strerror or str(error), "the lines of a trial's metrics")) from None
    return found, unread
