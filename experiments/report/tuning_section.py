"""The report's section on a study that tunes its variants: the sweep, and the comparison at the first variant's setting.

All other parts of the report are of the tuned comparison.
"""

import statistics
from collections.abc import Mapping
from typing import Any

from pairform.experiments.report.table import plain, signed
from pairform.experiments.report.tuning_reading import Tuning
from pairform.experiments.results.sweeps import Setting


def tuning_table(found: Tuning) -> dict[str, Any]:
    """The contents of the section: rows of its tables as texts, remarks and findings with their subjects."""
    ended = sum(len(setting.losses) for sweep in found.sweeps.values() for setting in sweep.settings)
    return {
        "ended": ended,
        "trials": sum(sum(sweep.trials.values()) for sweep in found.sweeps.values()),
        "chosen": [
            (
                name,
                "" if sweep.chosen is None else sweep.chosen.name,
                *measured(found.tuned.get(name)),
                *measured(found.shared.get(name)),
            )
            for name, sweep in found.sweeps.items()
        ],
        "swept": [
            (name, setting.name, *swept(setting), index == sweep.best)
            for name, sweep in found.sweeps.items()
            for index, setting in enumerate(sweep.settings)
        ],
        "remarks": [(name, remark) for name, sweep in found.sweeps.items() for remark in sweep.remarks],
        "findings": [
            (name, [each["finding"] for each in row["difference"].values()])
            for name, row in found.shared.items()
            if "difference" in row and not found.factors
        ],
    }


def measured(row: Mapping[str, Any] | None) -> tuple[str, str]:
    """The loss of a variant, and its difference from the first, with their intervals."""
    if row is None:
        return "", ""
    found = row["results"].get("loss"), row.get("difference", {}).get("loss")
    loss, change = (
        "" if each is None else shown(each["mean"]) + half(each) for each, shown in zip(found, (plain, signed), strict=True)
    )
    return loss, change


def half(found: Mapping[str, Any]) -> str:
    return f" ± {plain(found['half_width'])}" if found["half_width"] else ""


def swept(setting: Setting) -> tuple[str, str]:
    """The mean loss of a setting in the sweep, and how many trials it is of, and how many failed."""
    known = [loss for loss in setting.losses.values() if loss is not None]
    failed = len(setting.losses) - len(known)
    return (plain(statistics.fmean(known)) if known else ""), f"{len(known)}{f', {failed} failed' if failed else ''}"
