"""The section on a study that tunes its variants: the sweep, and the comparison at the first variant's setting.

All other sections are of the tuned comparison.
"""

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pairform.experiments.report.cells import Cell, Table
from pairform.experiments.report.charts import Axis, Chart, Series, number, wide
from pairform.experiments.report.findings import factor_table
from pairform.experiments.report.reading import LONGEST_NAME, Report
from pairform.experiments.report.section import Section
from pairform.experiments.report.table import plain, signed
from pairform.experiments.report.tuning_reading import Tuning
from pairform.experiments.results.sweeps import Setting, Sweep
from pairform.registry.errors import cut_middle

TEXT = (
    "Each variant was trained at every setting, and the setting with the lowest mean validation loss is its best: {ended} of "
    "{trials} trials of this sweep have ended. The variants are then retrained on other seeds, since a loss that was the "
    "reason for a choice is too low. Tuned: each variant at its own best setting, as everywhere else on this page. Same "
    "recipe: each at the best setting of the first variant."
)


def tuning(report: Report) -> Section | None:
    """The choices with their remarks, both comparisons, and the losses of the sweep."""
    found = report.tuning
    if found is None:
        return None
    known = {variant.trials[0].variant: variant.name for variant in report.variants}
    names = {name: known.get(name, cut_middle(name, LONGEST_NAME)) for name in found.sweeps}
    ended = sum(len(setting.losses) for sweep in found.sweeps.values() for setting in sweep.settings)
    factors = [
        replace(table, fold=f"Same recipe: {table.fold}") for table in (factor_table(each, False) for each in found.factors)
    ]
    return Section(
        "tuning",
        "Tuning",
        TEXT.format(ended=ended, trials=sum(sum(sweep.trials.values()) for sweep in found.sweeps.values())),
        findings=[(names[name], [remark]) for name, sweep in found.sweeps.items() for remark in sweep.remarks],
        tables=[chosen_table(found, names), *factors, swept_table(found, names)],
        charts=[
            chart
            for place, (path, values) in enumerate(report.study.tune.items(), 1)
            if (chart := sweep_chart(found, names, f"sweep-{place}", path, values)) is not None
        ],
    )


def chosen_table(found: Tuning, names: Mapping[str, str]) -> Table:
    """The best setting of each variant, its loss in both comparisons, and what was found at the same recipe."""
    rows = [
        [
            Cell(names[name]),
            Cell("" if sweep.chosen is None else cut_middle(sweep.chosen.name, LONGEST_NAME)),
            *measured(found.tuned.get(name)),
            *measured(found.shared.get(name)),
        ]
        for name, sweep in found.sweeps.items()
    ]
    sentences = [
        (names[name], " ".join(each["finding"][:1].upper() + each["finding"][1:] for each in row["difference"].values()))
        for name, row in found.shared.items()
        if "difference" in row and not found.factors
    ]
    return Table(
        "Loss of the retrained variants and its difference from the first one, and what was found at the same recipe",
        ("Variant", "Best setting", "Tuned", "Difference, tuned", "Same recipe", "Difference, same recipe"),
        rows,
        sorts=True,
        findings=sentences,
    )


def measured(row: Mapping[str, Any] | None) -> list[Cell]:
    """The loss of a variant, and its difference from the first, with their intervals."""
    found = (None, None) if row is None else (row["results"].get("loss"), row.get("difference", {}).get("loss"))
    return [
        Cell("", "") if each is None else Cell(shown(each["mean"]) + half(each), each["mean"])
        for each, shown in zip(found, (plain, signed), strict=True)
    ]


def half(found: Mapping[str, Any]) -> str:
    return f" ± {plain(found['half_width'])}" if found["half_width"] else ""


def swept_table(found: Tuning, names: Mapping[str, str]) -> Table:
    """A row for each variant and setting."""
    rows = [
        [
            Cell(names[name]),
            Cell(cut_middle(setting.name, LONGEST_NAME)),
            number(mean(setting)),
            Cell(f"{len(known(setting))} of {len(setting.losses)}"),
            Cell("best" if index == sweep.best else ""),
        ]
        for name, sweep in found.sweeps.items()
        for index, setting in enumerate(sweep.settings)
    ]
    head = ("Variant", "Setting", "Loss", "Trials done, of those that ended", "Choice")
    return Table("Mean validation loss in the sweep", head, rows, sorts=True, fold="Results of the sweep")


def sweep_chart(found: Tuning, names: Mapping[str, str], key: str, path: str, values: Sequence[Any]) -> Chart | None:
    """The loss over the values of a path; None if they are not numbers."""
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return None
    series = [line(names[name], sweep, path) for name, sweep in found.sweeps.items()]
    several = any(len(setting.hyperparameters) > 1 for sweep in found.sweeps.values() for setting in sweep.settings)
    return Chart(
        key,
        f"Loss in the sweep by {path}",
        "lines",
        Axis(path, log=wide(values)),
        Axis("loss"),
        [each for each in series if each.x],
        "At each value, the lowest loss over the other tuned values." if several else "",
    )


def line(name: str, sweep: Sweep, path: str) -> Series:
    """The lowest mean loss at each value of a path."""
    lowest: dict[float, float] = defaultdict(lambda: float("inf"))
    for setting in sweep.settings:
        if (loss := mean(setting)) is not None:
            value = setting.hyperparameters[path]
            lowest[value] = min(lowest[value], loss)
    x = sorted(lowest)
    return Series(name, x, [lowest[value] for value in x])


def mean(setting: Setting) -> float | None:
    """The mean loss of a setting; None if no trial is done."""
    return statistics.fmean(losses) if (losses := known(setting)) else None


def known(setting: Setting) -> list[float]:
    return [loss for loss in setting.losses.values() if loss is not None]
