"""A study's trials as one table, for a spreadsheet or a data frame."""

import csv
import io
import json
from pathlib import Path
from typing import Any

from pairform.experiments.results.records import first_variant, result_of, trials_of
from pairform.experiments.results.summary import timed_results, trials_by_variant
from pairform.experiments.results.sweeps import RECIPES, recipes_of, sweeps_of
from pairform.experiments.results.time_to_loss import named
from pairform.registry import InputError, OutputError, Problem, not_installed, output_path, replace_bytes, thaw

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""First characters of a text that a spreadsheet would run."""


def export(study: Path, out: Path, overwrite: bool = False) -> Path:
    """Write a row for each trial: its variant, levels of factors, tuned values, seed, status, how its size is matched, its
    results, and whether and when it reaches the first variant's loss.

    Args:
        study: The study's folder.
        out: A file that ends in .csv or .parquet.
        overwrite: Replace a file that exists.

    Returns:
        The absolute path of the file.

    Raises:
        OutputError: there is no study, or the file exists or cannot be written.
        InputError: another ending, or pyarrow is not installed.
    """
    target = output_path(out)
    if target.suffix not in (".csv", ".parquet"):
        raise InputError(Problem(str(out), f"the ending {target.suffix!r}", ".csv or .parquet"))
    if target.exists() and not overwrite:
        raise OutputError(Problem(str(out), "a file that exists", "a new name", "Add --overwrite to replace it."))
    rows = table(study)
    replace_bytes(target, as_csv(rows) if target.suffix == ".csv" else as_parquet(rows))
    return target


def table(study: Path) -> list[dict[str, Any]]:
    """The rows, all with the same columns: None for what a trial lacks."""
    found, trials = [], sorted(trials_of(study), key=lambda trial: trial.number)
    sweeps = sweeps_of(study, trials)
    recipes = recipes_of(study, sweeps, first_variant(study), trials) if sweeps else {}
    groups = trials_by_variant(study)
    _, times = timed_results(study, groups)
    compared = {trial.name for own in groups.values() for trial in own}
    for trial in trials:
        row: dict[str, Any] = {"trial": trial.name, "variant": trial.variant, "point": trial.point, "seed": trial.seed}
        row |= {"rung": trial.rung} if trial.rung else {}
        row |= {f"factor.{factor}": level for factor, level in trial.levels.items()}
        if trial.stage is not None:
            row |= {"stage": trial.stage} | {recipe: recipe in recipes.get(trial.name, ()) for recipe in RECIPES}
            row |= {f"tune.{path}": plain(value) for path, value in trial.hyperparameters.items()}
        row["status"] = trial.status
        if trial.match is not None:
            row |= {f"match.{name}": getattr(trial.match, name) for name in ("by", "difference", "matched")}
        found.append(row | (result_of(study, trial.name) if trial.status == "done" else {}))
        if trial.name in compared and (own := times.get(trial.variant)) is not None and trial.seed in own.seeds:
            found[-1] |= {f"{own.label}.reached": own.seeds[trial.seed] is not None} | named(own, trial.seed)
    columns = dict.fromkeys(name for row in found for name in row)
    return [{name: row.get(name) for name in columns} for row in found]


def plain(value: Any) -> Any:
    """A value as a cell: an object or a list as JSON."""
    return value if value is None or isinstance(value, bool | int | float | str) else json.dumps(thaw(value))


def as_csv(rows: list[dict[str, Any]]) -> bytes:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    if rows:
        writer.writerow(map(harmless, rows[0]))
        writer.writerows([harmless(value) for value in row.values()] for row in rows)
    return file.getvalue().encode("utf-8", "backslashreplace")


def harmless(value: Any) -> Any:
    """A text that a spreadsheet would run as a formula, with an apostrophe in front."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise InputError(not_installed("study export", "pyarrow", "adapt")) from None
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    return file.getvalue()
