"""Reading a study's folder for its report."""

import statistics
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pairform.experiments.results.ladder import VariantLaw, ladder_results
from pairform.experiments.results.records import (
    ENVIRONMENT,
    NEW,
    STUDY,
    TRIALS,
    Match,
    Trial,
    measurable,
    result_of,
)
from pairform.experiments.results.summary import summarise, trials_by_variant
from pairform.experiments.study.factor_results import FactorResults, factor_results
from pairform.experiments.study.spec import StudySpec
from pairform.registry import OutputError, Problem, difference, open_regular, parse_json, read_json, thaw
from pairform.training.metrics import METRICS

LINE_BYTES = 1 << 16
"""Longest line of metrics; longer ones are skipped."""
LAST_STEP = 1 << 53
"""Larger integers have no exact float, which plots are drawn with."""
CURVES = {
    ("train", "loss"): "Training loss",
    ("train", "auxiliary_loss"): "Auxiliary training loss",
    ("valid", "loss"): "Validation loss",
    ("valid", "accuracy"): "Validation accuracy",
}
"""Titles of the curves by split and measure."""


@dataclass(frozen=True)
class Measured:
    """Mean of a measure over `seeds`, and half the width of its confidence interval (None for fewer than three seeds)."""

    mean: float
    half_width: float | None
    seeds: int


@dataclass(frozen=True)
class Curve:
    """A measure over training steps: its mean, minimum and maximum over seeds."""

    steps: list[int]
    mean: list[float]
    low: list[float]
    high: list[float]


@dataclass(frozen=True)
class Variant:
    """The trials of one variant.

    rank:        by loss, variants with failed seeds last; None while trials are unfinished.
    differences: JSON path -> (the base's value, this variant's), including `training`; None stands for absent.
    match:       its size against the first variant's, in a study that scales variants.
    seeds:       results by seed, of trials that are done.
    measured:    mean and interval of each measure.
    change:      of the loss from the first variant at the same point of the grid, paired by seed; None for the first itself.
    findings:    what was found of each measure, as sentences without a subject.
    curves:      by split and measure.
    unread:      number of unreadable lines of metrics, by trial.
    """

    name: str
    trials: list[Trial]
    rank: int | None
    differences: dict[str, tuple[Any, Any]]
    match: Match | None
    seeds: dict[int, dict[str, Any]]
    measured: dict[str, Measured]
    change: Measured | None
    findings: dict[str, str]
    curves: dict[tuple[str, str], Curve]
    unread: dict[str, int]

    @property
    def complete(self) -> bool:
        """Whether every seed is done, so that its means are comparable with other variants'."""
        return len(self.seeds) == len(self.trials)

    @property
    def progress(self) -> str:
        """As in `fast (1 of 3 seeds)`."""
        return f"{self.name} ({len(self.seeds)} of {len(self.trials)} seeds)"

    @property
    def matched(self) -> str:
        """Its size against the first variant's, as a sentence."""
        if self.match is None:
            return ""
        allowed = "" if self.match.tolerance is None else f", within the study's tolerance of {self.match.tolerance:.2%}"
        sizes = f"{self.match.found:,} {self.match.by} against {self.match.wanted:,}"
        return f"Scaled to the size of the first variant: {sizes}, a difference of {self.match.difference:+.2%}{allowed}."


@dataclass(frozen=True)
class Report:
    """The contents of a report.

    factors: their effects on each measure; none in a study without factors.
    ladder:  the scaling law of each variant; none in a study of one size.
    """

    study: StudySpec
    variants: list[Variant]
    environment: dict[str, Any]
    factors: list[FactorResults]
    ladder: list[VariantLaw]

    @property
    def first(self) -> str:
        """Name of the variant that the others are compared with."""
        return next(iter(self.study.arms))

    @property
    def unread(self) -> dict[str, int]:
        """Number of unreadable lines of metrics, by trial."""
        return {name: count for variant in self.variants for name, count in variant.unread.items()}

    @property
    def trials(self) -> list[Trial]:
        return sorted((trial for variant in self.variants for trial in variant.trials), key=lambda trial: trial.number)


def read_report(folder: Path) -> Report:
    """Read a study's folder; `OutputError` if it is none."""
    groups = trials_by_variant(folder)
    study = StudySpec.read(read_json(folder / STUDY))
    rows = summarise(folder)
    variants = [read_variant(folder, study, groups[row["variant"]], row) for row in rows]
    file = folder / ENVIRONMENT
    return Report(study, variants, read_json(file) if file.is_file() else {}, factor_results(folder), ladder_results(folder))


def read_variant(folder: Path, study: StudySpec, trials: list[Trial], row: dict[str, Any]) -> Variant:
    """One variant. row: its row of the study's summary."""
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
        change=Measured(*(change[name] for name in ("mean", "half_width", "seeds"))) if change else None,
        findings={measure: each["finding"] for measure, each in row.get("difference", {}).items()},
        curves=read_curves([line for lines, _ in metrics.values() for line in lines]),
        unread={name: count for name, (_, count) in metrics.items() if count},
    )


def differences(study: StudySpec, trial: Trial) -> dict[str, tuple[Any, Any]]:
    """Where a trial differs from the study's base and training settings."""
    found = difference(study.model, thaw(trial.spec))
    found |= difference(study.training.document(), trial.training.document(), "training")
    return found | difference(thaw(study.weights or NEW), thaw(trial.weights), "weights")


def read_curves(lines: list[dict[str, Any]]) -> dict[tuple[str, str], Curve]:
    """Curves of the logged lines of several seeds, by split and measure."""
    found: dict[tuple[str, str], Curve] = {}
    for split, name in CURVES:
        by_step: dict[int, list[float]] = defaultdict(list)
        for line in lines:
            if line.get("split") == split and measurable(line.get(name)):
                by_step[line["step"]].append(line[name])
        if by_step:
            steps = sorted(by_step)
            values = [by_step[step] for step in steps]
            means = list(map(statistics.fmean, values))
            found[split, name] = Curve(steps, means, list(map(min, values)), list(map(max, values)))
    return found


def read_metrics(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The lines of a trial's metrics, and the number of unreadable ones, as a full disk or an interrupted copy leaves them."""
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
