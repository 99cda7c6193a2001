"""A study's results by variant: means over seeds, and differences from the first variant."""

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pairform.experiments.evaluation.specs import Measured, qualities
from pairform.experiments.results.records import STUDY, Trial, baselines, first_variant, result_of, trials_of
from pairform.experiments.results.sweeps import Recipe, read_sweeps, recipes_of, sweeps_of, tuned_values, uncertainty
from pairform.experiments.results.time_to_loss import Results, Times, times_to_loss, with_times
from pairform.experiments.statistics.comparisons import Comparison, compare
from pairform.experiments.statistics.intervals import interval
from pairform.experiments.statistics.rules import QUALITY, ComparisonSpec, Direction, Quality
from pairform.registry import read_json


def summarise(study: Path, recipe: Recipe = "tuned") -> list[dict[str, Any]]:
    """Summarise a study: one row per variant, in the study's order.

    Args:
        study: The study's folder.
        recipe: In a study that tunes its variants, which comparison: each at its own best setting, or all at the first one's.

    Returns:
        For each variant, `trials`: their number by status; `results`: the mean, half-width of the confidence interval (None for
        fewer than three values) and number of seeds of each measure; `rank` by loss, as in `ranks`; `difference`: of loss and
        other measures from the first variant at the same point of the grid, paired by seed, so that the noise they share
        cancels, with the fields of `Comparison`, the direction that is `better`, and what was found as a sentence, `finding`;
        `also`: other variants that are the same, in whose rows its name is `same_as`; `remarks`: what is probably not meant in
        it; `same_losses`: a variant above whose losses are the same; `time_to_loss`: how many seeds reach the first variant's
        loss, in a study that asks; `match`: its size against the first variant's, in a study that scales variants.

    Raises:
        OutputError: `study` is not a study's folder.
    """
    groups = trials_by_variant(study, recipe)
    results, times = timed_results(study, groups)
    better = qualities_of(study)
    rules, rank = rules_of(study), ranks(groups, results)
    points = {variant: own[0].point for variant, own in groups.items()}
    same = same_losses(results)
    found = compared(results, points, first_variant(study), rules, measures_in_order(rules, better))
    rows: list[dict[str, Any]] = []
    for variant, own in groups.items():
        row: dict[str, Any] = {"variant": variant, "trials": dict(Counter(trial.status for trial in own))}
        row["rank"] = rank.get(variant)
        row["results"] = means(list(results[variant].values()))
        match = own[0].match
        if variant in found:
            caution = "" if match is None else match.caution
            row["difference"] = {}
            for each in found[variant]:
                early = times[variant].caution(each.measure) if variant in times else ""
                finding = each.sentence(rules) + early + caution
                row["difference"][each.measure] = asdict(each) | {"better": better[each.measure], "finding": finding}
        if own[0].also:
            row["also"] = list(own[0].also)
        if own[0].remarks:
            row["remarks"] = list(own[0].remarks)
        if variant in same:
            row["same_losses"] = same[variant]
        if variant in times:
            row["time_to_loss"] = times[variant].document()
        if match is not None:
            row["match"] = match.row
        rows.append(row)
        rows += [second_row(name, row) for name in own[0].also]
    sweeps = read_sweeps(study) if recipe == "tuned" else {}
    for row in rows if sweeps else ():
        for each in row.get("difference", {}).values():
            if each.get("verdict") in ("lower", "higher"):
                each["finding"] += uncertainty(sweeps, first_variant(study), row["variant"])
    return rows


def same_losses(results: Results) -> dict[str, str]:
    """Variants whose loss equals that of an earlier one with every seed, with that one: a change that may have no effect."""
    first: dict[tuple[tuple[int, float], ...], str] = {}
    found = {}
    for variant, own in results.items():
        losses = tuple((seed, result["loss"]) for seed, result in sorted(own.items()) if result.get("loss") is not None)
        if losses and (other := first.setdefault(losses, variant)) != variant:
            found[variant] = other
    return found


def second_row(name: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """The row of a variant that is another one under a second name: with that one's results, and no comparison of its own."""
    found = {key: value for key, value in row.items() if key != "also"} | {"variant": name, "same_as": row["variant"]}
    difference = row.get("difference", {})
    if not difference and (loss := row["results"].get("loss")) is not None:  # the first variant's
        difference = {"loss": {"mean": 0.0, "half_width": loss["half_width"] and 0.0, "seeds": loss["seeds"]}}
    said = f"the same model, training and weights as {row['variant']}."
    found["difference"] = {measure: each | {"finding": said} for measure, each in difference.items()}
    return found


def trials_by_variant(study: Path, recipe: Recipe = "tuned") -> dict[str, list[Trial]]:
    """The trials that are compared, by variant, both in the study's order; `OutputError` if there is no study.

    In a study that tunes its variants, they are the retrained ones of one comparison.
    """
    trials, groups = sorted(trials_of(study), key=lambda trial: trial.number), defaultdict[str, list[Trial]](list)
    if tuned_values(study):
        recipes = recipes_of(study, sweeps_of(study, trials), first_variant(study), trials)
        trials = [trial for trial in trials if recipe in recipes.get(trial.name, ())]
    for trial in trials:
        groups[trial.variant].append(trial)
    return groups


def results_of(study: Path, groups: Mapping[str, list[Trial]], seeds: Collection[int] | None = None) -> Results:
    """The results of trials that are done, by variant and seed. seeds: those to read; by default, all."""
    return {
        variant: {
            trial.seed: result_of(study, trial.name)
            for trial in own
            if trial.status == "done" and (seeds is None or trial.seed in seeds)
        }
        for variant, own in groups.items()
    }


def timed_results(
    study: Path, groups: Mapping[str, list[Trial]], seeds: Collection[int] | None = None
) -> tuple[Results, dict[str, Times]]:
    """As `results_of`, with the times of the variants of which every seed reaches the first one's loss; and all times."""
    results = results_of(study, groups, seeds)
    times = times_to_loss(study, groups, results)
    return with_times(results, times), times


def ranks(groups: Mapping[str, list[Trial]], results: Results) -> dict[str, int]:
    """Ranks from 1 of the variants whose trials have all ended, by mean loss; ties share a rank.

    A mean over the seeds that did not fail says nothing about the others, so a variant ranks after those with fewer failed
    seeds, whatever its loss.
    """
    keys: dict[str, tuple[int, float]] = {}
    for variant, trials in groups.items():
        states = Counter(trial.status for trial in trials)
        if states.keys() <= {"done", "failed"}:
            losses = [result["loss"] for result in results[variant].values() if result.get("loss") is not None]
            keys[variant] = (states["failed"], statistics.fmean(losses) if losses else math.inf)
    return {variant: 1 + sum(other < key for other in keys.values()) for variant, key in keys.items()}


def paired(own: dict[int, dict[str, Any]], other: dict[int, dict[str, Any]], measure: Quality) -> list[float]:
    """Differences of a measure, for each seed that both variants have."""
    values = ((own[seed].get(measure), other[seed].get(measure)) for seed in own if seed in other)
    return [value - compared for value, compared in values if value is not None and compared is not None]


def compared(
    results: Results,
    points: Mapping[str, str],
    first: str | None,
    rules: ComparisonSpec,
    measures: Iterable[Quality] = QUALITY,
) -> dict[str, list[Comparison]]:
    """The differences of each variant from the first one at the same point of the grid, in each measure that both have."""
    others = {name: other for name, other in baselines(points, first).items() if other != name}
    found: dict[str, list[Comparison]] = defaultdict(list)
    for measure in measures:
        differences = {name: paired(results[name], results.get(other, {}), measure) for name, other in others.items()}
        measured = {name: values for name, values in differences.items() if values}
        for name, comparison in compare(measured, measure, rules).items():
            found[name].append(comparison)
    return found


def rules_of(study: Path) -> ComparisonSpec:
    """How the study compares its variants."""
    return ComparisonSpec.read(read_json(study / STUDY).get("comparison", {}), where=f"{study / STUDY}: comparison")


def qualities_of(study: Path) -> dict[Quality, Direction]:
    """The measures in which the study's variants are compared, with the values that are better."""
    document = read_json(study / STUDY)
    fields = {name: document[name] for name in Measured.model_fields if name in document}
    measured = Measured.read(fields, where=str(study / STUDY))
    return qualities(measured.measures, measured.latency)


def measures_in_order(rules: ComparisonSpec, known: Iterable[Quality]) -> list[Quality]:
    """All measures, those that the study names for its comparisons first."""
    names = list(known)
    return list(dict.fromkeys([*(name for name in rules.measures if name in names), *names]))


def means(results: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Mean and half-width of each measure."""
    found = {}
    for key in dict.fromkeys(key for result in results for key in result):
        values = [result[key] for result in results if result.get(key) is not None]
        if values:
            mean, half = interval(values)
            found[key] = {"mean": mean, "half_width": half, "seeds": len(values)}
    return found
