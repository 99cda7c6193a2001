"""What prevents a study from being run: parts of its file that contradict one another."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pairform.experiments.evaluation.specs import TimeToLoss, check_measures
from pairform.experiments.study.factors import FullDesign, check_combinations, check_factors
from pairform.experiments.study.ladder import check_ladder
from pairform.experiments.study.seeds import SeedsUntil, all_seeds
from pairform.experiments.study.tuning import check_tuning
from pairform.experiments.study.values import check_values, misplaced
from pairform.registry import Problem, shorten, suggest

if TYPE_CHECKING:
    from pairform.experiments.study.spec import StudySpec

CHANGES_TIME = tuple(f"training.{name}" for name in ("batch", "dtype", "device", "threads", "optimizer", "optimizer.name"))
"""Paths of the settings that the time of a step depends on."""


def check_study(study: "StudySpec") -> Iterator[Problem]:
    """Every problem of a study whose fields are valid on their own."""
    seeds = all_seeds(study.seeds)
    if len(set(seeds)) < len(seeds):
        yield Problem("seeds", str(list(seeds)), "each seed once")
    if isinstance(study.seeds, SeedsUntil) and study.search is not None:
        yield Problem("seeds.until", "seeds until and search together", "a list of seeds in a search")
    for path, values in study.grid.items():
        yield from check_values("grid", path, values)
    yield from check_tuned(study, seeds)
    if study.match is not None and not study.factors and len(study.variants) < 2:
        yield Problem("match", "one variant", "two or more: each is scaled towards the first")
    if study.search is not None and not study.grid:
        yield Problem("search", "no grid", "paths with the values to choose from")
    if study.search is not None and study.match is not None:
        yield Problem("match", "match and search together", "only one of the two")
    yield from check_qualities(study)
    design = [*check_design(study), *check_ladder(study.ladder, bool(study.factors), study.search is not None)]
    yield from design
    if design:
        return
    count = study.trials
    if count > study.budget.trials:
        remedy = "Shorten the grid, or raise budget.trials."
        yield Problem("budget.trials", f"{count:,} trials", f"at most {study.budget.trials:,}", remedy)
    elif study.factors:
        yield from check_combinations(study.factors, study.design)


def check_qualities(study: "StudySpec") -> Iterator[Problem]:
    """Measures, and the places where a study names them."""
    yield from check_measures(study.measures)
    for index, measure in enumerate(study.measures):
        if isinstance(measure, TimeToLoss) and study.training.evaluate_every is None:
            expected = "training.evaluate_every, the steps between validations"
            yield Problem(f"measures[{index}]", "time_to_loss and no validation before the end", expected)
    known = study.qualities
    named = [(f"comparison.measures[{place}]", name) for place, name in enumerate(study.comparison.measures)]
    named += [("comparison.margins", name) for name in study.comparison.margins]
    later = {name for measure in study.measures if not measure.trained for name in measure.qualities}
    if study.search is not None:
        named.append(("search.measure", study.search.measure))
    for where, name in named:
        if name not in known or (where == "search.measure" and name in later):
            yield Problem(where, shorten(name), f"a measure of the study: {', '.join(known)}", suggest(name, known))


def check_design(study: "StudySpec") -> Iterator[Problem]:
    """Factors, their design, and what they cannot be combined with."""
    if not study.factors:
        if study.design != FullDesign():
            yield Problem("design", "no factors", "factors whose combinations it chooses")
        return
    yield from check_factors(study.factors, study.design)
    if study.variants != {"base": {}}:
        yield Problem("variants", "variants and factors together", "one of them", "Make the variants levels of a factor.")
    if study.grid:
        yield Problem("grid", "a grid and factors together", "one of them", "Make the grid's values levels of a factor.")


def check_tuned(study: "StudySpec", seeds: tuple[int, ...]) -> Iterator[Problem]:
    """Tuned values, and what they cannot be combined with."""
    for path, values in study.tune.items():
        yield from check_values("tune", path, values)
    patches: dict[str, Mapping[str, Any]] = {f"variants.{name}": patch for name, patch in study.variants.items()}
    patches |= {f"factors.{name}.{level}": patch for name, all_ in study.factors.items() for level, patch in all_.items()}
    patches |= {f"ladder.{rung}": patch for rung, patch in study.ladder.items()}
    yield from check_tuning(study.tune, study.tune_seeds, seeds, study.grid, patches)
    if study.tune and study.search is not None:
        yield Problem("tune", "tune and search together", "only one of the two", "Move the grid's paths to `tune`.")
    of_time = [path for path in study.tune if path in CHANGES_TIME]
    if study.match is not None and study.match.by == "seconds" and of_time:
        remedy = "Each setting would be scaled to a time of its own. Match by parameters or FLOPs."
        found = "match by seconds and a tuned value that changes them"
        yield Problem(f"tune.{of_time[0]}", found, "only one of the two", remedy)
    of_model = [path for path in study.tune if (first := path.partition(".")[0]) != "training" and not misplaced(first)]
    if study.match is not None and of_model:
        remedy = "Tuned variants would differ in size: tune values of `training` only."
        yield Problem(f"tune.{of_model[0]}", "match and a tuned value outside of `training`", "only one of the two", remedy)
