"""Reading a study's folder for its report."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pairform.experiments.report.tuning_reading import Tuning, read_tuning
from pairform.experiments.results.ladder import VariantLaw, ladder_results
from pairform.experiments.results.matched_size import Match, amount
from pairform.experiments.results.metric_lines import read_metrics
from pairform.experiments.results.records import ENVIRONMENT, NEW, STUDY, TRIALS, Trial, measurable
from pairform.experiments.results.summary import summarise, timed_results, trials_by_variant
from pairform.experiments.statistics.comparisons import same_losses
from pairform.experiments.study.factor_results import FactorResults, factor_results
from pairform.experiments.study.spec import StudySpec
from pairform.registry import difference, read_json, shorten, thaw
from pairform.registry.errors import cut_middle
from pairform.training.metrics import METRICS

LONGEST_NAME = 100
"""Characters of a variant's name in the page."""
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
    """A measure over training steps: its mean, minimum and maximum over seeds, and the values of each seed by step."""

    steps: list[int]
    mean: list[float]
    low: list[float]
    high: list[float]
    seeds: dict[int, dict[int, float]]


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
    notes:       what to know about it apart from its results, as such sentences.
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
    notes: tuple[str, ...]
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
        within = "within" if self.match.matched else "not within"
        allowed = "" if self.match.tolerance is None else f", {within} the study's tolerance of {self.match.tolerance:.2%}"
        sizes = f"{amount(self.match.found)} {self.match.by} against {amount(self.match.wanted)}"
        return f"Scaled to the size of the first variant: {sizes}, a difference of {self.match.difference:+.2%}{allowed}."


@dataclass(frozen=True, repr=False)
class Report:
    """The contents of a report.

    factors: their effects on each measure; none in a study without factors.
    ladder:  the scaling law of each variant; none in a study of one size.
    tuning:  of a study that tunes its variants, whose variants here are those at their own best settings.
    """

    study: StudySpec
    variants: list[Variant]
    environment: dict[str, Any]
    factors: list[FactorResults]
    ladder: list[VariantLaw]
    tuning: Tuning | None

    def __repr__(self) -> str:
        done = sum(trial.status == "done" for trial in self.trials)
        return (
            f"<Report of {shorten(self.study.name)}: {len(self.variants):,} variants, {done} of {len(self.trials)} trials done>"
        )

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from pairform.experiments.report.view import show

        return show(self)

    @property
    def first(self) -> str:
        """Name of the variant that the others are compared with."""
        return cut_middle(self.study.first, LONGEST_NAME)

    @property
    def unread(self) -> dict[str, int]:
        """Number of unreadable lines of metrics, by trial."""
        return {name: count for variant in self.variants for name, count in variant.unread.items()}

    @property
    def trials(self) -> list[Trial]:
        return sorted((trial for variant in self.variants for trial in variant.trials), key=lambda trial: trial.number)


def read_report(folder: Path) -> Report:
    """What the report shows of a study's folder; `OutputError` if it is none."""
    groups = trials_by_variant(folder)
    study = StudySpec.read(read_json(folder / STUDY))
    rows = [row for row in summarise(folder) if "same_as" not in row]
    names = short_names([row["variant"] for row in rows])
    results, _ = timed_results(folder, groups)
    variants = [
        read_variant(folder, study, groups[row["variant"]], row | {"variant": name}, results[row["variant"]])
        for name, row in zip(names, rows, strict=True)
    ]
    file = folder / ENVIRONMENT
    environment = read_json(file) if file.is_file() else {}
    return Report(study, variants, environment, factor_results(folder), ladder_results(folder), read_tuning(folder))


def short_names(names: list[str]) -> list[str]:
    """Names for the page: cut where they are long, and numbered where that makes them equal."""
    found: dict[str, None] = {}
    for place, name in enumerate(names, 1):
        short = cut_middle(name, LONGEST_NAME)
        found[short if short not in found else f"{short} ({place})"] = None
    return list(found)


def read_variant(
    folder: Path, study: StudySpec, trials: list[Trial], row: dict[str, Any], results: dict[int, dict[str, Any]]
) -> Variant:
    """One variant. row: its row of the study's summary; results: by seed, of trials that are done."""
    done = [trial for trial in trials if trial.status == "done"]
    metrics = {trial.seed: read_metrics(folder / TRIALS / trial.name / METRICS) for trial in done}
    change = row.get("difference", {}).get("loss")
    return Variant(
        name=row["variant"],
        trials=trials,
        rank=row["rank"],
        differences=differences(study, trials[0]),
        match=trials[0].match,
        seeds=results,
        measured={key: Measured(**found) for key, found in row["results"].items()},
        change=Measured(*(change[name] for name in ("mean", "half_width", "seeds"))) if change else None,
        findings=findings(row),
        notes=notes(row),
        curves=read_curves({seed: lines for seed, (lines, _) in metrics.items()}),
        unread={trial.name: count for trial in done if (count := metrics[trial.seed][1])},
    )


def findings(row: dict[str, Any]) -> dict[str, str]:
    """What was found of each measure, and of how long it takes to the first variant's loss."""
    found = {}
    if "same_losses" in row:
        found["same_losses"] = same_losses(cut_middle(row["same_losses"], LONGEST_NAME))
    found |= {measure: each["finding"] for measure, each in row.get("difference", {}).items()}
    found |= {"time_to_loss": row["time_to_loss"]["finding"]} if found and "time_to_loss" in row else {}
    return found


def notes(row: dict[str, Any]) -> tuple[str, ...]:
    """What to know about a variant apart from its results."""
    names = ", ".join(cut_middle(name, LONGEST_NAME) for name in row.get("also", ()))
    same = f"The same model, training and weights as {names}, which has no trials of its own."
    remarks = (remark[:1].upper() + remark[1:] for remark in row.get("remarks", ()))
    return (*((same,) if names else ()), *remarks)


def differences(study: StudySpec, trial: Trial) -> dict[str, tuple[Any, Any]]:
    """Where a trial differs from the study's base and training settings."""
    found = difference(study.model, thaw(trial.spec))
    found |= difference(study.training.document(), trial.training.document(), "training")
    return found | difference(thaw(study.weights or NEW), thaw(trial.weights), "weights")


def read_curves(lines: Mapping[int, list[dict[str, Any]]]) -> dict[tuple[str, str], Curve]:
    """Curves of the logged lines of each seed, by split and measure."""
    found: dict[tuple[str, str], Curve] = {}
    for split, name in CURVES:
        seeds = {
            seed: {line["step"]: line[name] for line in logged if line.get("split") == split and measurable(line.get(name))}
            for seed, logged in lines.items()
        }
        steps = sorted({step for values in seeds.values() for step in values})
        if steps:
            values = [[known[step] for known in seeds.values() if step in known] for step in steps]
            means = list(map(statistics.fmean, values))
            found[split, name] = Curve(steps, means, list(map(min, values)), list(map(max, values)), seeds)
    return found
