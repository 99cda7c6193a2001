"""A study's trials as they end, and its results, in the terminal."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pairform.cli.display.remarks import LONGEST_NAME, matched, print_remarks
from pairform.cli.display.text import spread
from pairform.cli.options import print_json
from pairform.registry.errors import cut_end, cut_middle, printable

if TYPE_CHECKING:
    from pairform.experiments.execution.progress import Ended
    from pairform.experiments.results.sweeps import Recipe
    from pairform.experiments.study.factor_results import FactorResults

LONGEST_LINE = 1000
"""Characters of a line about a trial."""


def progress_line(ended: "Ended") -> str:
    """As in `3/12  done    mqa-seed0  loss 3.1766  2 min left`."""
    from pairform.cli.display.text import duration

    width, trial = len(str(ended.total)), ended.trial
    line = f"{ended.done:>{width}}/{ended.total}  {trial.status:<7} {trial.name}"
    if trial.error:
        return cut_end(f"{line}: {trial.error.strip().splitlines()[-1]}", LONGEST_LINE)
    line += "" if ended.loss is None else f"  loss {ended.loss:.4f}"
    return line if ended.seconds_left is None else f"{line}  {duration(ended.seconds_left)} left"


def show(directory: Path, as_json: bool) -> None:
    """Print what is known of a study."""
    from pairform.cli.display.factors import factor_rows, print_factors
    from pairform.cli.display.ladder import ladder_rows, print_ladder
    from pairform.cli.display.tuning import print_sweeps, sweep_rows
    from pairform.experiments.results.ladder import ladder_results
    from pairform.experiments.results.summary import rules_of, summarise
    from pairform.experiments.results.sweeps import read_sweeps
    from pairform.experiments.statistics.rules import spoken

    sweeps, measures = read_sweeps(directory).values(), rules_of(directory).measures
    rows, factors = summarise(directory), effects_of(directory, "tuned")
    same = summarise(directory, "same_recipe") if sweeps else []
    laws = ladder_results(directory)
    same_factors = effects_of(directory, "same_recipe") if sweeps else []
    if as_json:
        found: dict[str, Any] = {"study": str(directory), "variants": rows}
        found |= {"factors": factor_rows(factors)} if factors else {}
        found |= {"ladder": ladder_rows(laws)} if laws else {}
        if sweeps:
            found["tuning"] = {"sweeps": sweep_rows(sweeps), "same_recipe": same}
            found["tuning"] |= {"same_recipe_factors": factor_rows(same_factors)} if same_factors else {}
        print_json(found)
        return
    others = [name for name in measures if name not in ("loss", "accuracy")]
    table = [
        ("variant", "trials", "loss", "difference", "accuracy", *map(spoken, others), "parameters", "FLOPs", "size vs first"),
        *(cells(row, others) for row in rows),
    ]
    columns = [column for column in zip(*table, strict=True) if any(column[1:])]
    for line in zip(*([cell.ljust(max(map(len, column))) for cell in column] for column in columns), strict=True):
        print(printable("  ".join(line).rstrip()))
    print_findings(rows, factors, measures)
    print_factors(factors)
    print_ladder(laws)
    if sweeps:
        if rows:
            print()
        print_sweeps(sweeps)
        if same:
            print("The results above are of each variant at its own best values. At those of the first variant:")
        print_findings(same, same_factors, measures)
        print_factors(same_factors)


def effects_of(directory: Path, recipe: "Recipe") -> "list[FactorResults]":
    """The effects of the study's factors, if it has any: their reader imports torch."""
    from pairform.experiments.results.records import has_factors

    if not has_factors(directory):
        return []
    from pairform.experiments.study.factor_results import factor_results

    return factor_results(directory, recipe=recipe)


def print_findings(rows: list[dict[str, Any]], factors: "list[FactorResults]", measures: Sequence[str]) -> None:
    """What was found of each variant; in a study of factors, that is said of the factors."""
    from pairform.experiments.statistics.comparisons import same_losses

    rows = [row for row in rows if "same_as" not in row]
    for row in rows if not factors else ():
        for found in (row["difference"][name] for name in measures if name in row.get("difference", {})):
            print(printable(f"{cut_middle(row['variant'], LONGEST_NAME)}: {found['finding']}"))
    print_remarks((row["variant"], row.get("also", ()), row.get("remarks", ())) for row in rows)
    for row in rows:
        if "same_losses" in row:
            other = cut_middle(row["same_losses"], LONGEST_NAME)
            print(printable(f"{cut_middle(row['variant'], LONGEST_NAME)}: {same_losses(other)}"))
        if "time_to_loss" in row:
            print(printable(f"{cut_middle(row['variant'], LONGEST_NAME)}: {row['time_to_loss']['finding']}"))


def cells(row: dict[str, Any], others: list[str]) -> tuple[str, ...]:
    """A variant's row of the table. others: measures besides loss and accuracy."""
    found = row["results"]
    trials = sum(row["trials"].values())
    return (
        cut_middle(printable(row["variant"]), LONGEST_NAME),
        ", ".join(f"{count} {status}" for status, count in row["trials"].items()),
        with_interval(found.get("loss"), trials),
        with_interval(row.get("difference", {}).get("loss"), trials, "+"),
        with_interval(found.get("accuracy"), trials),
        *(with_interval(found.get(name), trials) for name in others),
        *(f"{found[name]['mean']:,.0f}" if name in found else "" for name in ("parameters", "flops")),
        matched(row["match"]) if "match" in row else "",
    )


def with_interval(measured: dict[str, Any] | None, trials: int, sign: str = "") -> str:
    """A mean with its interval, and its number of seeds if not all trials are done."""
    if measured is None:
        return ""
    seeds = measured["seeds"]
    part = "" if seeds == trials else f" ({seeds} of {trials} seeds)"
    return spread(measured["mean"], measured["half_width"], sign) + part
