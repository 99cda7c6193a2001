"""The effects of factors, on the command line."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pairform.cli.display.printing import Sheet, console
from pairform.experiments.statistics.rules import spoken
from pairform.registry.errors import printable

if TYPE_CHECKING:
    from pairform.experiments.study.factor_results import FactorResults


def factor_rows(found: "list[FactorResults]") -> list[dict[str, Any]]:
    """The effects as documents, with what was found as sentences."""
    rows = []
    for each in found:
        row = asdict(each)
        row.pop("rules")
        comparisons = [effect.comparison for effect in each.effects] + [pair.comparison for pair in each.interactions]
        for comparison, made in zip(comparisons, [*row["effects"], *row["interactions"]], strict=True):
            if comparison is not None:
                made["comparison"]["finding"] = comparison.sentence(each.rules)
        rows.append(row)
    return rows


def print_factors(found: "list[FactorResults]") -> None:
    """Marginal means of the loss by level, then what was found of factors and of their interactions."""
    for each in found:
        if each.measure not in each.rules.measures:
            continue
        console.print()
        table = Sheet("factor", "level", f"mean {spoken(each.measure)}, over {len(each.seeds)} complete seeds")
        for effect in each.effects:
            half = "" if effect.half_width is None else f" ±{effect.half_width:.4f}"
            table.add_row(effect.factor, effect.level, f"{effect.mean:.4f}{half}")
        console.print(table)
        for effect in each.effects:
            if effect.comparison is not None:
                alias = each.aliased([effect.factor])
                console.print(printable(f"{effect.factor}={effect.level}: {effect.comparison.sentence(each.rules)}{alias}"))
        for pair in each.interactions:
            name = " by ".join(f"{factor}={level}" for factor, level in pair.levels.items())
            console.print(printable(f"{name}: {pair.comparison.sentence(each.rules)}{each.aliased(list(pair.levels))}"))
