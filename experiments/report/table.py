"""The report's tables: a row for each variant or trial, a column for each measure."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from pairform.experiments.report.cells import Cell, Table
from pairform.experiments.report.reading import Report, Variant
from pairform.experiments.report.section import Section
from pairform.experiments.statistics.rules import spoken

CHANGE, STATE, RANK = "change", "state", "rank"
"""Columns that are not means over seeds."""
Format = Callable[[float], str]


@dataclass(frozen=True)
class Column:
    """A column. note: what the number is; cost: shown without an interval."""

    key: str
    title: str
    note: str
    format: Format
    cost: bool = True


def plain(value: float) -> str:
    """Four decimal places, four digits of a small number, or three of a large one with a unit."""
    if abs(value) >= 1e5:
        return decimal(value)
    return f"{value:.4g}" if abs(value) < 1e-3 and value else f"{value:.4f}"


def scaled(value: float, step: int, units: tuple[str, ...]) -> str:
    """Three digits and a unit: 14.3 M."""
    power = 0
    # from here on, rounding to three digits would give 1000, 100 or 10
    while abs(value) >= 999.5 and power < len(units) - 1:
        value, power = value / step, power + 1
    digits = 0 if abs(value) >= 99.95 or value == int(value) else 1 if abs(value) >= 9.995 else 2
    return f"{value:.{digits}f}{units[power]}"


signed = "{:+.4f}".format
decimal = partial(scaled, step=1000, units=("", " k", " M", " G", " T", " P"))
binary = partial(scaled, step=1024, units=(" B", " KiB", " MiB", " GiB", " TiB"))

COLUMNS = (
    Column("loss", "Loss", "mean cross-entropy per target token, in validation", plain, cost=False),
    Column(CHANGE, "Loss against the first", "difference from the first variant, paired by seed", signed, cost=False),
    Column(STATE, "Trials", "number of trials by status", plain),
    Column(RANK, "Rank", "by loss; variants with failed seeds come last, unfinished ones have none", plain),
    Column("accuracy", "Accuracy", "fraction of target tokens that the model gives the highest probability", plain, cost=False),
    Column("exact_match", "Exact match", "fraction of targets whose tokens are all predicted", plain, cost=False),
    Column("parameters", "Parameters", "shared ones counted once", decimal),
    Column("carried_parameters", "Carried over", "parameters that come from the checkpoints that it starts from", decimal),
    Column("flops", "FLOPs", "of a forward pass over the longest source and target", decimal),
    Column("non_embedding_parameters", "N", "parameters without embeddings and head", decimal),
    Column("training_tokens", "D", "source and target tokens trained on, without padding", decimal),
    Column("training_flops", "C", "FLOPs of training, of examples of the longest lengths", decimal),
    Column("latency", "Latency, ms", "time to generate one target", lambda value: f"{1000 * value:,.1f}", cost=False),
    Column("first_token_seconds", "First token, ms", "time to generate it", lambda value: f"{1000 * value:,.1f}", cost=False),
    Column("tokens_per_second", "Tokens/s", "in training; concurrent trials share the machine", decimal),
    Column("peak_bytes", "Peak memory", "above the level before training", binary),
    Column("cache_bytes", "Cache", "keys and values of the longest source and target", binary),
    Column("seconds", "Seconds", "duration of a trial", decimal),
)


def columns(variants: list[Variant]) -> list[Column]:
    """The columns for which a variant has a number; unknown measures come last, under their own names."""
    measured = dict.fromkeys(key for variant in variants for key in variant.measured)
    keys = {STATE, RANK, *measured, *([CHANGE] if any(variant.change for variant in variants) else [])}
    known = [column for column in COLUMNS if column.key in keys]
    others = [key for key in measured if key not in {column.key for column in COLUMNS}]
    return known + [Column(key, spoken(key).capitalize(), "", plain, cost=False) for key in others]


def results(report: Report) -> Section:
    """A row for each variant."""
    shown = columns(report.variants)
    table = Table(
        "Quality and cost of each variant",
        ("Variant", *(column.title for column in shown)),
        [[Cell(variant.name), *(cell(variant, column) for column in shown)] for variant in report.variants],
        sorts=True,
        notes={column.title: column.note for column in shown if column.note},
    )
    words = "Means over finished seeds, ± half of the 95 % confidence interval (Student's t). Click a column to sort by it."
    return Section("results", "Results", words, tables=[table])


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
    text = column.format(measured.mean) + half
    if measured.seeds < len(variant.trials):
        return Cell(f"{text} ({measured.seeds} of {len(variant.trials)} seeds)", "")
    return Cell(text, measured.mean)


def trials(report: Report) -> Table:
    """A row for each trial, in the order in which they run."""
    shown = [column for column in columns(report.variants) if column.key not in (CHANGE, STATE, RANK)]
    seeds = {variant.trials[0].variant: variant.seeds for variant in report.variants}
    rows = []
    for trial in report.trials:
        result = seeds[trial.variant].get(trial.seed, {})
        first = [Cell(trial.name), Cell(trial.status), Cell(str(trial.attempts), trial.attempts)]
        rows.append(first + [single(result.get(column.key), column) for column in shown])
    head = ("Trial", "State", "Starts", *(column.title for column in shown))
    return Table("One row per trial", head, rows, sorts=True, fold="Results of each trial")


def single(value: Any, column: Column) -> Cell:
    return Cell(column.format(value), value) if isinstance(value, int | float) else Cell("", None)
