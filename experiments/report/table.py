"""The report's table: a row for each variant, a column for each number that was measured."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from pairform.experiments.report.reading import Report, Variant

CHANGE, STATE, BEGUN, RANK = "change", "state", "begun", "rank"
"""Columns of what is no mean over seeds."""
BINARY = ("B", "KiB", "MiB", "GiB", "TiB")
DECIMAL = ("", " k", " M", " G", " T", " P")
Format = Callable[[float], str]


@dataclass(frozen=True)
class Column:
    """`note` says in a few words what the number is. Costs stand without an interval."""

    key: str
    title: str
    note: str
    format: Format
    cost: bool = True


@dataclass(frozen=True)
class Cell:
    """What stands in the table, and what it is sorted by; None for its text, "" to stand last whichever way."""

    text: str
    value: float | Literal[""] | None


@dataclass(frozen=True)
class Row:
    """A variant, or one trial."""

    name: str
    cells: list[Cell]


def plain(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1e-3 and value else f"{value:.4f}"


def signed(value: float) -> str:
    return f"{value:+.4f}"


def decimal(value: float) -> str:
    return scaled(value, 1000, DECIMAL)


def binary(value: float) -> str:
    return scaled(value, 1024, tuple(f" {unit}" for unit in BINARY))


def scaled(value: float, step: int, units: tuple[str, ...]) -> str:
    """Three digits and a unit: 14.3 M."""
    power = 0
    while abs(value) >= 999.5 and power < len(units) - 1:
        value, power = value / step, power + 1
    digits = 0 if abs(value) >= 99.95 or value == int(value) else 1 if abs(value) >= 9.995 else 2
    return f"{value:.{digits}f}{units[power]}"


def milliseconds(value: float) -> str:
    return f"{1000 * value:,.1f}"


COLUMNS = (
    Column("loss", "Loss", "of a token in validation", plain, cost=False),
    Column(CHANGE, "Loss against the first", "difference from the first variant, seed by seed", signed, cost=False),
    Column(STATE, "Trials", "how many reached what", plain),
    Column(RANK, "Rank", "by loss; variants with failed seeds after all others, unfinished ones have none", plain),
    Column("accuracy", "Accuracy", "part of the tokens that are the likeliest", plain, cost=False),
    Column("exact_match", "Exact match", "part of the targets without a fault", plain, cost=False),
    Column("parameters", "Parameters", "tied ones once", decimal),
    Column("flops", "FLOPs", "of one forward pass at the longest lengths", decimal),
    Column("latency", "Latency, ms", "milliseconds in which one target is written", milliseconds, cost=False),
    Column("tokens_per_second", "Tokens/s", "in training; trials beside each other share the machine", decimal),
    Column("peak_bytes", "Peak memory", "that training took", binary),
    Column("cache_bytes", "Cache", "of keys and values at the longest lengths", binary),
    Column("seconds", "Seconds", "of a whole trial", decimal),
)


def columns(variants: list[Variant]) -> list[Column]:
    """Those that any variant has a number for; a number that is not known here goes last, under its own name."""
    measured = dict.fromkeys(key for variant in variants for key in variant.measured)
    keys = {STATE, RANK, *measured, *([CHANGE] if any(variant.change for variant in variants) else [])}
    known = [column for column in COLUMNS if column.key in keys]
    others = [key for key in measured if key not in {column.key for column in COLUMNS}]
    return known + [Column(key, key.replace("_", " ").capitalize(), "", plain, cost=False) for key in others]


def rows(variants: list[Variant], shown: list[Column]) -> list[Row]:
    """One row a variant."""
    return [Row(variant.name, [cell(variant, column) for column in shown]) for variant in variants]


def cell(variant: Variant, column: Column) -> Cell:
    if column.key == STATE:
        counts = Counter(trial.status for trial in variant.trials)
        return Cell(", ".join(f"{count} {status}" for status, count in counts.items()), None)
    if column.key == RANK:
        return Cell("", None) if variant.rank is None else Cell(str(variant.rank), variant.rank)
    measured = variant.change if column.key == CHANGE else variant.measured.get(column.key)
    if measured is None:
        return Cell("", None)
    if column.cost:
        return Cell(column.format(measured.mean), measured.mean)
    half = f" ± {column.format(measured.half_width).lstrip('+')}" if measured.half_width else ""
    told = column.format(measured.mean) + half
    if measured.seeds < len(variant.trials):
        return Cell(f"{told} ({measured.seeds} of {len(variant.trials)} seeds)", "")
    return Cell(told, measured.mean)


def trial_columns(shown: list[Column]) -> list[Column]:
    """The same for single trials."""
    numbers = [column for column in shown if column.key not in (CHANGE, STATE, RANK)]
    return [Column(STATE, "State", "", plain), Column(BEGUN, "Begun", "", plain), *numbers]


def trial_rows(report: Report, shown: list[Column]) -> list[Row]:
    """One row a trial, in the order in which they are run."""
    seeds = {variant.name: variant.seeds for variant in report.variants}
    found = []
    for trial in report.trials:
        first = [Cell(trial.status, None), Cell(f"{trial.attempts} times", trial.attempts)]
        result = seeds[trial.variant].get(trial.seed, {})
        found.append(Row(trial.name, first + [single(result.get(column.key), column) for column in shown[len(first) :]]))
    return found


def single(value: Any, column: Column) -> Cell:
    return Cell(column.format(value), value) if isinstance(value, int | float) else Cell("", None)
