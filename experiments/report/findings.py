"""What was found of variants and of factors, as sentences."""

from pairform.experiments.report.cells import Cell, Table
from pairform.experiments.report.reading import Report
from pairform.experiments.report.section import Section
from pairform.experiments.report.table import plain
from pairform.experiments.statistics.effects import Effect
from pairform.experiments.statistics.rules import spoken
from pairform.experiments.study.factor_results import FactorResults

FACTORS = (
    "Each level is compared with the first of its factor, averaged over the levels of all other factors. An interaction is how "
    "much the effect of one factor changes between levels of another. "
)
NOTES = ("same_losses", "time_to_loss")
"""What is said of a combination itself, and not of factors."""


def findings(report: Report) -> Section | None:
    """A sentence for each variant and measure. A study of factors has none: its factors are compared instead."""
    found = [(variant.name, list(variant.findings.values())) for variant in report.variants if variant.findings]
    found = [*noted(report), *found]
    if report.factors or not found:
        return None
    return Section("findings", "Findings", report.study.comparison.explanation, findings=found)


def factors(report: Report) -> Section | None:
    """The levels of factors, their effects and interactions; a table for each measure."""
    if not report.factors:
        return None
    tables = [factor_table(each, each is report.factors[0]) for each in report.factors]
    own = [(each.name, [each.findings[name]]) for each in report.variants for name in NOTES if name in each.findings]
    said = [*noted(report), *own]
    return Section("factors", "Factors", FACTORS + report.study.comparison.explanation, findings=said, tables=tables)


def noted(report: Report) -> list[tuple[str, list[str]]]:
    """The notes of each variant, one by one, so that the page shows all of them."""
    return [(variant.name, [note]) for variant in report.variants for note in variant.notes]


def factor_table(found: FactorResults, first: bool) -> Table:
    """A row for each level of each factor, and what was found of factors and interactions."""
    measure = spoken(found.measure)
    rows = [[Cell(text) for text in cells(each)] for each in found.effects]
    sentences = [(measure.capitalize(), found.gap)] if found.gap else []
    sentences += [
        (f"{each.factor}={each.level}", each.comparison.sentence(found.rules) + found.aliased([each.factor]))
        for each in found.effects
        if each.comparison is not None
    ]
    sentences += [
        (
            " by ".join(f"{factor}={level}" for factor, level in each.levels.items()),
            each.comparison.sentence(found.rules, interaction=True) + found.aliased(list(each.levels)),
        )
        for each in found.interactions
    ]
    return Table(
        f"Mean {measure} by level, and its difference from the first level, with half of their 95 % confidence intervals",
        ("Factor", "Level", "Mean", "±", "Difference", "±"),
        rows,
        fold=f"{measure.capitalize()}, over {len(found.seeds)} seeds in which every combination is done",
        unfolded=first,
        findings=sentences,
    )


def cells(effect: Effect) -> tuple[str, ...]:
    """A level of a factor: its mean, and its difference from the first level."""
    numbers = [effect.mean, effect.half_width]
    numbers += [None, None] if effect.comparison is None else [effect.comparison.mean, effect.comparison.half_width]
    return (effect.factor, effect.level, *("" if number is None else plain(number) for number in numbers))
