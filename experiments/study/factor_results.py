"""The effects of a study's factors, from the trials that are done."""

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pairform.experiments.results.records import STUDY
from pairform.experiments.results.summary import measures_in_order, timed_results, trials_by_variant
from pairform.experiments.results.sweeps import Recipe
from pairform.experiments.statistics.effects import Effect, Interaction, effects, interactions
from pairform.experiments.statistics.factorial import alias_groups, effect_name
from pairform.experiments.statistics.rules import ComparisonSpec, Quality, spoken
from pairform.experiments.study.factors import ChosenDesign, FractionalDesign
from pairform.experiments.study.spec import StudySpec
from pairform.registry import read_json
from pairform.registry.errors import cut_middle


@dataclass(frozen=True)
class FactorResults:
    """The effects of factors on one measure.

    seeds:        those in which every combination is done, on which all numbers are based.
    effects:      of each level; none if the combinations cannot tell the factors apart.
    interactions: of each two factors, of aliases only the first; none for combinations that were chosen one by one.
    aliases:      groups of effects that a fractional design cannot tell apart.
    unmatched:    combinations whose size differs from that of the first by more than the study allows.
    missing:      combinations for which the measure is not known with any seed in which the others are done. If there is one,
                  there are no effects.
    """

    measure: Quality
    seeds: tuple[int, ...]
    effects: list[Effect]
    interactions: list[Interaction]
    rules: ComparisonSpec
    aliases: list[list[str]]
    unmatched: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def gap(self) -> str:
        """Why there are no effects, as a sentence; empty if every combination has the measure."""
        if not self.missing:
            return ""
        more = f" and {len(self.missing) - 1} more" * (len(self.missing) > 1)
        return f"No effects on {spoken(self.measure)}: it is not known for {cut_middle(self.missing[0], 80)}{more}."

    def aliased(self, factors: Sequence[str]) -> str:
        """Sentences that name the effects that the design cannot tell apart from this one, and the number of combinations that
        are not matched in size; empty if there is none."""
        name = effect_name(factors)
        others = [other for group in self.aliases if name in group for other in group if other != name]
        sizes = f" Not matched in size: {len(self.unmatched)} of the combinations." if self.unmatched else ""
        return (f" It is aliased with {', '.join(others)}." if others else "") + sizes


def factor_results(folder: Path, seeds: Collection[int] | None = None, recipe: Recipe = "tuned") -> list[FactorResults]:
    """The effects of a study's factors on each measure that its trials have; empty for a study without factors.

    Args:
        folder: The study's folder.
        seeds: Those to use; by default, all in which every combination is done.
        recipe: In a study that tunes its combinations, which comparison.

    Raises:
        SpecError: the study's file is damaged.
    """
    study = StudySpec.read(read_json(folder / STUDY), where=str(folder / STUDY))
    if not study.factors:
        return []
    factors = {factor: list(levels) for factor, levels in study.factors.items()}
    cells = [arm.levels for arm in study.arms.values()]
    groups = trials_by_variant(folder, recipe)
    known, _ = timed_results(folder, groups, seeds)
    results = [known.get(name, {}) for name in study.arms]
    design, rules = study.design, study.comparison
    aliases = alias_groups(list(factors), design.resolution) if isinstance(design, FractionalDesign) else []
    unmatched = tuple(name for name, own in groups.items() if own[0].match is not None and not own[0].match.matched)
    pairs = [] if isinstance(design, ChosenDesign) else distinct(list(factors), aliases)
    found = []
    for measure in measures_in_order(rules, study.qualities):
        complete = [seed for seed in results[0] if all(result.get(seed, {}).get(measure) is not None for result in results)]
        done = [seed for seed in results[0] if all(seed in result for result in results)]
        if done and not complete and measure in rules.measures:
            unknown = [name for name in study.arms if all(known[name][seed].get(measure) is None for seed in done)]
            found.append(FactorResults(measure, (), [], [], rules, aliases, unmatched, tuple(unknown or study.arms)))
        elif complete:
            values = np.array([[result[seed][measure] for seed in complete] for result in results], dtype=np.float64)
            found.append(
                FactorResults(
                    measure,
                    tuple(complete),
                    effects(factors, cells, values, measure, rules),
                    interactions(pairs, factors, cells, values, measure, rules),
                    rules,
                    aliases,
                    unmatched,
                )
            )
    return found


def distinct(factors: Sequence[str], aliases: Sequence[Sequence[str]]) -> list[tuple[str, str]]:
    """The pairs of factors whose interactions differ from one another and from every factor: of aliases, the first."""
    repeated = {name for group in aliases for name in group[1:]}
    return [pair for pair in itertools.combinations(factors, 2) if effect_name(pair) not in repeated]
