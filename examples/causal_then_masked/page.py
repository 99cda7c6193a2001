"""The results as a table in Markdown, and a sentence for each difference from masked language modelling alone."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pairform.experiments.statistics.comparisons import compare
from pairform.experiments.statistics.intervals import interval
from pairform.experiments.statistics.rules import ComparisonSpec

MEASURES = ("masked loss", "linear probe", "span task")


def write(results: Sequence[dict[str, Any]], folder: Path) -> None:
    """Write `results.md`."""
    (folder / "results.md").write_text("\n".join([*table(results), "", *sentences(results)]) + "\n", "utf-8")


def by_share(results: Sequence[dict[str, Any]], measure: str) -> dict[str, list[float]]:
    """The values of a measure, in the order of the seeds, by the share of masked language modelling."""
    found: dict[str, list[float]] = {}
    for result in results:
        found.setdefault(f"{result['share']:.0%}", []).append(result[measure])
    return found


def table(results: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Means over seeds with 95 % intervals."""
    yield f"| masked share | {' | '.join(MEASURES)} |"
    yield "|---" * (1 + len(MEASURES)) + "|"
    columns = [by_share(results, measure) for measure in MEASURES]
    for share in columns[0]:
        yield f"| {share} | {' | '.join(shown(column[share]) for column in columns)} |"


def shown(values: Sequence[float]) -> str:
    mean, half = interval(values)
    return f"{mean:.3f}" if half is None else f"{mean:.3f} ± {half:.3f}"


def sentences(results: Sequence[dict[str, Any]]) -> Iterator[str]:
    """What was found of each share, each measure a family of comparisons."""
    rules = ComparisonSpec()
    for measure in MEASURES:
        first, *others = by_share(results, measure).items()
        differences = {share: [value - own for value, own in zip(values, first[1], strict=True)] for share, values in others}
        for share, found in compare(differences, measure, rules).items():
            yield f"- {share} masked: {found.sentence(rules)}"
