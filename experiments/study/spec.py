"""A study as JSON: a base model, variants of it, and how each is trained and measured."""

import functools
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from pairform.assemblies.specs.model import ModelSpec
from pairform.experiments.evaluation.specs import Measures, qualities
from pairform.experiments.results.records import Stage
from pairform.experiments.statistics.rules import ComparisonSpec, Direction, Quality
from pairform.experiments.study.checks import check_study
from pairform.experiments.study.factors import (
    Design,
    Factors,
    FullDesign,
    Levels,
    combinations,
    count_combinations,
    variant_name,
)
from pairform.experiments.study.ladder import Ladder
from pairform.experiments.study.limits import BudgetSpec, MatchSpec, SearchSpec
from pairform.experiments.study.seeds import Seeds, all_seeds
from pairform.experiments.study.tuning import SETTINGS, TUNE_SEEDS, TuneSeeds
from pairform.experiments.study.values import Values
from pairform.registry import DocumentOf, Patch, Spec, nested, thaw
from pairform.training.adaptation.recipe_parts import Converted
from pairform.training.data.pairs import Pairs
from pairform.training.data.synthetic_tasks import AnyTask
from pairform.training.data.texts import Text
from pairform.training.settings import OptimizerSpec as OptimizerSpec
from pairform.training.settings import TrainingSpec

Model = Annotated[Patch, DocumentOf(ModelSpec)]
"""A model's document or a patch on one."""


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
    grid: Values = Field(
        default_factory=dict,
        description="Paths in the model's spec, each with its values; every variant is run with every combination.",
    )
    tune: Values = Field(
        default_factory=dict,
        description="Paths in `training` or in the model's spec, each with values: every variant is trained with every "
        "combination, and that of the lowest mean validation loss is its best. Then the variants are retrained with `seeds`, "
        "each at its own best values and all at those of the first, and compared both ways. Default: nothing is tuned.",
    )
    tune_seeds: TuneSeeds = Field(
        default=TUNE_SEEDS, description="Seeds of the trials that choose the tuned values; `seeds` may have none of them."
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
    measures: Measures = Field(default=(), description="What is measured besides the validation loss.")
    latency: bool = Field(
        default=False,
        description="Also measure the seconds in which a trained model generates its first token, and a whole target. Trials "
        "that run at the same time distort them.",
    )
    budget: BudgetSpec = Field(default=BudgetSpec(), description="Limits of the study.")

    @model_validator(mode="after")
    def _can_be_run(self) -> Self:
        problems = list(check_study(self))
        if problems:
            raise nested(problems)
        return self

    @property
    def model(self) -> dict[str, Any]:
        """The document of the base, if `read_study` has expanded it."""
        assert not isinstance(self.base, str), "expanded when the study was read"
        return dict(thaw(self.base["spec"] if "convert" in self.base else self.base))

    @property
    def qualities(self) -> dict[Quality, Direction]:
        """The measures in which variants are compared, with the values that are better."""
        return qualities(self.measures, self.latency)

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
    def first(self) -> str:
        """The variant that others are compared with."""
        return next(iter(self.arms))

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
        """Largest number of trials: one for each seed and point. If variants are tuned, the sweep, and two settings of each
        variant apart from the first."""
        seeds = len(all_seeds(self.seeds))
        if not self.tune:
            return self.points * seeds
        swept = self.combinations * math.prod(map(len, self.tune.values())) * len(self.tune_seeds)
        first = self.combinations // (count_combinations(self.factors, self.design) if self.factors else len(self.variants))
        return swept + (SETTINGS * self.combinations - first) * seeds

    @property
    def settings(self) -> list[dict[str, Any]]:
        """Every combination of tuned values; an empty one if nothing is tuned."""
        return [dict(zip(self.tune, values, strict=True)) for values in itertools.product(*self.tune.values())]

    @property
    def stages(self) -> list[tuple[Stage, int]]:
        """The stage and the seed of the trials of one combination."""
        if not self.tune:
            return [(None, seed) for seed in all_seeds(self.seeds)]
        swept: list[tuple[Stage, int]] = [("sweep", seed) for seed in self.tune_seeds]
        return [*swept, *(("retrain", seed) for seed in all_seeds(self.seeds))]
