"""The effects of factors, on the command line."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pairform.cli.display.printing import Sheet, print_wide
from pairform.cli.display.text import spread
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
        for effect, made in zip(each.effects, row["effects"], strict=True):
            if effect.comparison is not None:
                made["comparison"]["finding"] = effect.comparison.sentence(each.rules)
        for pair, made in zip(each.interactions, row["interactions"], strict=True):
            made["comparison"]["finding"] = pair.comparison.sentence(each.rules, interaction=True)
        rows.append(row)
    return rows


def print_factors(found: "list[FactorResults]") -> None:
    """Marginal means of the loss by level, then what was found of factors and of their interactions."""
    for each in found:
        if each.measure not in each.rules.measures:
            continue
        print()
        if each.gap:
            print(printable(each.gap))
            continue
        table = Sheet("factor", "level", f"mean {spoken(each.measure)}, over {len(each.seeds)} complete seeds", "difference")
        for effect in each.effects:
            change = "" if effect.comparison is None else spread(effect.comparison.mean, effect.comparison.half_width, "+")
            table.add_row(effect.factor, effect.level, spread(effect.mean, effect.half_width), change)
        print_wide(table)
        for effect in each.effects:
            if effect.comparison is not None:
                alias = each.aliased([effect.factor])
                print(printable(f"{effect.factor}={effect.level}: {effect.comparison.sentence(each.rules)}{alias}"))
        for pair in each.interactions:
            name = " by ".join(f"{factor}={level}" for factor, level in pair.levels.items())
            found_of = pair.comparison.sentence(each.rules, interaction=True)
            print(printable(f"{name}: {found_of}{each.aliased(list(pair.levels))}"))
