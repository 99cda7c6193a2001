"""Tuning: values that are swept within each variant before the variants are compared."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import Field, Strict

from pairform.experiments.results.records import Trial
from pairform.experiments.study.values import Values
from pairform.registry import Problem, shorten
from pairform.training.settings import Count

TuneSeeds = Annotated[tuple[Count, ...], Strict(False), Field(min_length=1)]
TUNE_SEEDS = (1000, 1001)
"""By default: above all seeds that `seeds.until` can add."""
SETTINGS = 2
"""At most, each variant is retrained at so many: its own best one, and that of the first variant."""


def check_tuning(
    tune: Values, tune_seeds: tuple[int, ...], seeds: tuple[int, ...], grid: Mapping[str, Any], patches: Mapping[str, Any]
) -> Iterator[Problem]:
    """What prevents the variants from being tuned. patches: those of variants and factors, by their place in the study."""
    if not tune:
        if tune_seeds != TUNE_SEEDS:
            yield Problem("tune_seeds", "no `tune`", "paths with the values to choose from")
        return
    if len(set(tune_seeds)) < len(tune_seeds):
        yield Problem("tune_seeds", str(list(tune_seeds)), "each seed once")
    if common := sorted({*tune_seeds} & {*seeds}):
        found = f"{', '.join(map(str, common[:3]))}, which `seeds` has too"
        remedy = "A setting that was chosen on a seed does better on that seed than on others. Choose other seeds."
        yield Problem("tune_seeds", found, "seeds on which the variants are not compared", remedy)
    for path, values in tune.items():
        if len(values) == 1:
            yield Problem(f"tune.{path}", "one value", "two or more to choose from", "Set it in the base or in `training`.")
        for other in (*grid, *tune):
            if f"{path}.".startswith(f"{other}.") and (other != path or other in grid):
                yield Problem(
                    f"tune.{path}", f"a path in {shorten(other)}, which has values too", "paths apart from each other"
                )
            elif f"{other}.".startswith(f"{path}.") and other in grid:
                yield Problem(f"tune.{path}", f"a path that holds {shorten(other)} of the grid", "paths apart from each other")
        for where, patch in patches.items():
            if holds(patch, path):
                remedy = "Remove it from the patch, or do not tune it."
                yield Problem(f"tune.{path}", f"a path that {where} sets", "paths that no variant sets", remedy)


def holds(patch: Any, path: str) -> bool:
    """Whether a patch sets the value at `a.b`, or one inside it."""
    for key in path.split("."):
        if not isinstance(patch, Mapping) or key not in patch:
            return False
        patch = patch[key]
    return True


def most_trials(trials: list[Trial], first: str) -> list[Trial]:
    """As many trials as the study can run, at the settings with most steps, where settings are chosen as it runs.

    trials: at every setting. first: the variant that the others are compared with, whose own setting is the first one.
    """
    left: Counter[tuple[str, int]] = Counter()
    found = []
    for trial in sorted(trials, key=lambda trial: -trial.training.steps):
        if trial.stage == "retrain":
            most = 1 if trial.arm == first else SETTINGS
            left[trial.variant, trial.seed] += 1
            if left[trial.variant, trial.seed] > most:
                continue
        found.append(trial)
    return sorted(found, key=lambda trial: trial.number)
