"""Parts of a study's specification: how much is run, sizes that are matched, and a search."""

from typing import Annotated, Literal

from pydantic import Field, Strict

from pairform.experiments.statistics.rules import Quality
from pairform.registry import PositiveFloat, PositiveInt, Spec
from pairform.training.settings import Count


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

    by: Literal["parameters", "flops", "seconds"] = Field(
        description="Size to compare: parameters, the FLOPs of a forward pass over the longest source and target, or the "
        "seconds of a step of training, which are measured before the first trial."
    )
    tolerance: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None,
        description="Largest difference allowed, as a fraction of the first variant's size. Default: 0.01, of seconds 0.05.",
    )
    unmatched: Literal["reject", "flag"] = Field(
        default="reject",
        description="What happens to a variant that remains further off: the study is rejected, or the variant is run as close "
        "as it comes, and the difference stated wherever it is compared.",
    )
    paths: Annotated[tuple[str, ...], Strict(False), Field(min_length=1)] = Field(
        default=tuple(f"{stack}.layer.branches.feed_forward.hidden" for stack in ("encoder", "decoder")),
        description="Sizes in the model's spec that are scaled together; those that a variant lacks are skipped.",
    )
    multiple: PositiveInt = Field(default=8, description="Each scaled size is a multiple of this number.")

    @property
    def allowed(self) -> float:
        """The largest difference allowed."""
        return self.tolerance or (0.05 if self.by == "seconds" else 0.01)


class SearchSpec(Spec):
    """Run a part of the grid, chosen by Optuna."""

    points: PositiveInt = Field(
        description="Number of points to run, each with every seed; all if the grid has fewer. A point is a variant with one "
        "value per grid path."
    )
    measure: Quality = Field(
        default="loss",
        description="Measure of a trial whose mean over seeds is minimised, or maximised if higher values are better: `loss`, "
        "`accuracy`, `exact_match`, or one of `measures`, such as `choices.accuracy`.",
    )
    sampler: Literal["tpe", "random"] = Field(
        default="tpe",
        description="tpe: tree-structured Parzen estimators (Bergstra et al. 2011, 'Algorithms for hyper-parameter "
        "optimization'); random: uniform sampling.",
    )
    seed: Count = Field(default=0, description="Seed of the sampler.")
