"""A study as JSON: a base model, variants of it, and how each is trained and measured."""

import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self

from pydantic import Field, Strict, model_validator

from pairform.assemblies.specs.model import ModelSpec
from pairform.experiments.statistics.rules import ComparisonSpec
from pairform.experiments.study.factors import (
    Design,
    Factors,
    FullDesign,
    Levels,
    check_factors,
    combinations,
    count_combinations,
    variant_name,
)
from pairform.experiments.study.ladder import Ladder, check_ladder
from pairform.experiments.study.seeds import Seeds, SeedsUntil, all_seeds
from pairform.registry import DocumentOf, Patch, PositiveFloat, PositiveInt, Problem, Spec, nested, shorten, thaw
from pairform.training.adaptation.recipe_parts import Converted
from pairform.training.data.pairs import Pairs
from pairform.training.data.synthetic_tasks import AnyTask
from pairform.training.data.texts import Text
from pairform.training.settings import Count, TrainingSpec
from pairform.training.settings import OptimizerSpec as OptimizerSpec

DEEPEST = 64
"""Largest number of fields in a path of the grid."""
Model = Annotated[Patch, DocumentOf(ModelSpec)]
"""A model's document or a patch on one."""


class BudgetSpec(Spec):
    """Limits of a study."""

    trials: Annotated[int, Field(gt=0, le=100_000)] = Field(
        default=1000, description="Largest number of trials; a study with more is refused before it starts."
    )
    minutes: PositiveFloat | None = Field(
        default=None, description="Minutes after which no trial is started; the next run resumes. Default: no limit."
    )


class MatchSpec(Spec):
    """Variants are scaled towards the size of the first one at the same point of the grid."""

    by: Literal["parameters", "flops"] = Field(
        description="Size to compare: parameters, or the FLOPs of a forward pass over the longest source and target."
    )
    tolerance: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.01,
        description="Largest difference allowed, as a fraction of the first variant's size; a larger one is an error.",
    )
    paths: Annotated[tuple[str, ...], Strict(False), Field(min_length=1)] = Field(
        default=tuple(f"{stack}.layer.branches.feed_forward.hidden" for stack in ("encoder", "decoder")),
        description="Sizes in the model's spec that are scaled together; those that a variant lacks are skipped.",
    )
    multiple: PositiveInt = Field(default=8, description="Each scaled size is a multiple of this number.")


class SearchSpec(Spec):
    """Run a part of the grid, chosen by Optuna."""

    points: PositiveInt = Field(
        description="Number of points to run, each with every seed; all if the grid has fewer. A point is a variant with one "
        "value per grid path."
    )
    measure: Literal["loss", "accuracy", "exact_match"] = Field(
        default="loss", description="Value to minimise (a loss) or maximise (an accuracy), averaged over seeds."
    )
    sampler: Literal["tpe", "random"] = Field(
        default="tpe",
        description="tpe: tree-structured Parzen estimators (Bergstra et al. 2011, 'Algorithms for hyper-parameter "
        "optimization'); random: uniform sampling.",
    )
    seed: Count = Field(default=0, description="Seed of the sampler.")


def comparable(value: Any) -> str:
    """Equal strings for values that are equal in JSON, such as 1 and 1.0."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key!r}: {comparable(item)}' for key, item in sorted(value.items()))}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(comparable, value))}]"
    return repr(value)


@dataclass(frozen=True)
class Arm:
    """What is compared: patches on the base, and the levels of the factors that they come from."""

    patches: tuple[Mapping[str, Any], ...]
    levels: Levels = field(default_factory=dict)


class StudySpec(Spec):
    """Everything that a study's numbers depend on. In patches and grid paths, `training` and `weights` refer to these fields of
    the study."""

    name: str = Field(description="Title of the report.")
    base: str | Model = Field(
        description="A preset's name, a path relative to the study file, a checkpoint's folder or hub id, a model's document, "
        'or `{"convert": {...}}` with the arguments of a conversion.'
    )
    weights: str | Annotated[Patch, DocumentOf(Converted)] | None = Field(
        default=None,
        description="Where a trial's weights come from: `new` (initialised by its seed), a checkpoint's folder or hub id, or "
        '`{"convert": {...}}`. Weights that do not fit the model are new. Default: the base if it is a checkpoint or a '
        "conversion, else new.",
    )
    variants: dict[str, Model] = Field(
        default_factory=lambda: {"base": dict[str, Any]()},  # of a study that has only a grid
        min_length=1,
        description="Merge patches on the base by name; the first is the baseline of comparisons.",
    )
    factors: Factors = Field(
        default_factory=dict,
        description="Named patches, as levels of factors, in place of variants: `{factor: {level: patch}}`. A combination of "
        "levels is a variant; that of all first levels is compared with the others.",
    )
    design: Design = Field(default=FullDesign(), description="Which combinations of levels are run.")
    grid: dict[str, Annotated[tuple[Any, ...], Strict(False)]] = Field(
        default_factory=dict,
        description="Paths in the model's spec, each with its values; every variant is run with every combination.",
    )
    ladder: Ladder = Field(
        default_factory=dict,
        description='Sizes by name: merge patches, as in `{"scale": {"width": 64, "depth": 2}, "training": {"steps": '
        "200}}`. Every variant is run at every size, and scaling laws are fitted. Default: one size.",
    )
    training: TrainingSpec = Field(default=TrainingSpec(), description="How each trial is trained.")
    data: Annotated[AnyTask | Text | Pairs, Field(discriminator="name")] = Field(
        description="Task or files that trials learn from."
    )
    seeds: Seeds = Field(
        default=(0, 1, 2),
        description="Seeds of weights and data order; one trial each. Or an object: as many seeds as the differences need.",
    )
    search: SearchSpec | None = Field(default=None, description="Run only a part of a large grid. Default: the whole grid.")
    match: MatchSpec | None = Field(
        default=None, description="Scale variants to the size of the first. Default: none is scaled."
    )
    comparison: ComparisonSpec = Field(default=ComparisonSpec(), description="How variants are compared with the first one.")
    latency: bool = Field(
        default=False,
        description="Also measure the seconds in which a trained model generates. Trials that run at the same time distort it.",
    )
    budget: BudgetSpec = Field(default=BudgetSpec(), description="Limits of the study.")

    @model_validator(mode="after")
    def _can_be_run(self) -> Self:
        problems = list(self._check())
        if problems:
            raise nested(problems)
        return self

    def _check(self) -> Iterator[Problem]:
        seeds = all_seeds(self.seeds)
        if len(set(seeds)) < len(seeds):
            yield Problem("seeds", str(list(seeds)), "each seed once")
        if isinstance(self.seeds, SeedsUntil) and self.search is not None:
            yield Problem("seeds.until", "seeds until and search together", "a list of seeds in a search")
        for path, values in self.grid.items():
            yield from self._check_values(path, values)
        if self.match is not None and not self.factors and len(self.variants) < 2:
            yield Problem("match", "one variant", "two or more: each is scaled towards the first")
        if self.search is not None and not self.grid:
            yield Problem("search", "no grid", "paths with the values to choose from")
        if self.search is not None and self.match is not None:
            yield Problem("match", "match and search together", "only one of the two")
        design = [*self._check_design(), *check_ladder(self.ladder, bool(self.factors), self.search is not None)]
        yield from design
        if design:
            return
        count = self.trials
        if count > self.budget.trials:
            remedy = "Shorten the grid, or raise budget.trials."
            yield Problem("budget.trials", f"{count:,} trials", f"at most {self.budget.trials:,}", remedy)

    def _check_design(self) -> Iterator[Problem]:
        if not self.factors:
            if self.design != FullDesign():
                yield Problem("design", "no factors", "factors whose combinations it chooses")
            return
        yield from check_factors(self.factors, self.design)
        if self.variants != {"base": {}}:
            yield Problem("variants", "variants and factors together", "one of them", "Make the variants levels of a factor.")
        if self.grid:
            yield Problem("grid", "a grid and factors together", "one of them", "Make the grid's values levels of a factor.")

    def _check_values(self, path: str, values: tuple[Any, ...]) -> Iterator[Problem]:
        parts = path.split(".")
        if not all(parts) or len(parts) > DEEPEST:
            yield Problem("grid", shorten(path), "a path in the spec, as in decoder.depth")
        if not values:
            yield Problem(f"grid.{path}", "no value", "at least one", "Remove the path to keep the base's value.")
        first_index: dict[str, int] = {}
        for index, value in enumerate(values):
            first = first_index.setdefault(comparable(value), first_index.setdefault(str(value), index))
            if first < index:
                found = f"{shorten(thaw(value))}, equal to or written like the value at [{first}]"
                yield Problem(f"grid.{path}[{index}]", found, "each value once")

    @property
    def model(self) -> dict[str, Any]:
        """The document of the base, if `read_study` has expanded it."""
        assert not isinstance(self.base, str), "expanded when the study was read"
        return dict(thaw(self.base["spec"] if "convert" in self.base else self.base))

    @functools.cached_property
    def arms(self) -> dict[str, Arm]:
        """The variants by name, or the combinations of factors that are run."""
        if not self.factors:
            return {name: Arm((patch,)) for name, patch in self.variants.items()}
        return {
            variant_name(levels): Arm(tuple(self.factors[factor][level] for factor, level in levels.items()), levels)
            for levels in combinations(self.factors, self.design)
        }

    @property
    def combinations(self) -> int:
        """Number of variants times number of points of the grid and of sizes of the ladder."""
        arms = count_combinations(self.factors, self.design) if self.factors else len(self.variants)
        return arms * math.prod(map(len, self.grid.values())) * max(1, len(self.ladder))

    @property
    def points(self) -> int:
        """Number of combinations that are run: all, or those of a search."""
        return self.combinations if self.search is None else min(self.search.points, self.combinations)

    @property
    def trials(self) -> int:
        """Largest number of trials: one for each seed and point."""
        return self.points * len(all_seeds(self.seeds))
