"""A recipe as JSON: how a model is adapted (continued pretraining), trained from scratch, or fine-tuned."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, Strict, model_validator

from pairform.registry import (
    PositiveFloat,
    PositiveInt,
    Problem,
    Spec,
    SpecError,
    merge_patch,
    nested,
    read_json,
    shorten,
    suggest,
)
from pairform.training.adaptation.recipe_parts import (
    AdaptationOptimizer,
    BatchSpec,
    CheckpointSpec,
    Converted,
    DataSpec,
    EvaluationSpec,
    LoggingSpec,
    ParallelSpec,
)
from pairform.training.distillation import DistillationSpec
from pairform.training.optimization.averaging import AverageSpec
from pairform.training.optimization.phases import PhaseSpec
from pairform.training.optimization.spikes import SkipSpec
from pairform.training.settings import Count, NotNegative, ScheduleSpec, Threads

PRESETS = Path(__file__).resolve().parent / "recipes"
Globs = Annotated[tuple[str, ...], Strict(False)]


class Recipe(Spec):
    """Everything that a run's numbers depend on, and how it is computed and recorded."""

    model: str | Converted = Field(
        description="What is trained: a folder or hub id with weights; a preset or a spec's file, from new weights; or "
        '`{"convert": {...}}`. Folders and files are relative to the working directory.'
    )
    data: DataSpec = Field(description="What it is trained on.")
    batch: BatchSpec = Field(description="The batch of a step.")
    steps: Annotated[int, Field(gt=0, lt=2**31)] | None = Field(default=None, description="Optimiser steps.")
    tokens: Annotated[int, Field(gt=0, lt=2**53)] | None = Field(
        default=None, description="Source and target tokens to train on, instead of `steps`."
    )
    seed: Count = Field(default=0, description="Seed of new weights, the order of the data, and dropout.")
    optimizer: AdaptationOptimizer = Field(default=AdaptationOptimizer(), description="Optimiser and its learning rate.")
    schedule: ScheduleSpec = Field(default=ScheduleSpec(), description="Learning-rate schedule.")
    clip: PositiveFloat | Literal["none"] = Field(default=1.0, description="Norm to which gradients are clipped, or none.")
    phases: Annotated[tuple[PhaseSpec, ...], Strict(False)] = Field(
        default=(), description="Phases at the beginning, in which only some parameters train."
    )
    frozen: Globs = Field(default=(), description="Patterns of parameters that never train, such as `*.vision.tower.*`.")
    skip_step: SkipSpec | None = Field(default=None, description="Skip updates at loss spikes. Default: none is skipped.")
    average: AverageSpec | None = Field(default=None, description="Average of weights to export. Default: none.")
    z_loss: NotNegative = Field(
        default=0.0,
        description="Coefficient of the mean squared log-sum-exp of the logits, which is added to the loss; 1e-4 in PaLM "
        "(Chowdhery et al. 2022, arXiv 2204.02311, section 5).",
    )
    distillation: DistillationSpec | None = Field(default=None, description="Distillation from a teacher. Default: none.")
    precision: Literal["float32", "bfloat16", "mixed"] = Field(
        default="float32",
        description="bfloat16: weights and computation. mixed: computation in bfloat16, weights and optimiser in float32.",
    )
    activation_checkpointing: Literal["all", "none"] | PositiveInt = Field(
        default="none", description="Layers whose activations are recomputed in the backward pass: all, none, or every nth."
    )
    compile: bool = Field(default=False, description="Compile each layer.")
    parallel: ParallelSpec = Field(default=ParallelSpec(), description="How processes share the work.")
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="Torch device; auto: cuda if there is one.")
    threads: Threads | None = Field(default=None, description="Torch's CPU threads of each process. Default: torch's.")
    checkpoint: CheckpointSpec = Field(default=CheckpointSpec(), description="The checkpoints that training resumes from.")
    evaluation: EvaluationSpec | None = Field(default=None, description="Held-out loss. Default: not measured.")
    logging: LoggingSpec = Field(default=LoggingSpec(), description="Where metrics go.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = list(self._check())
        if problems:
            raise nested(problems)
        return self

    def _check(self) -> Iterator[Problem]:
        if (self.steps is None) == (self.tokens is None):
            yield Problem("steps", "both steps and tokens" if self.steps else "neither steps nor tokens", "one of them")
            return
        for where, steps in (("phases", sum(phase.steps for phase in self.phases)), ("schedule.warmup", self.schedule.warmup)):
            if steps > self.total_steps:
                yield Problem(where, f"{steps:,} steps", f"at most the recipe's {self.total_steps:,}")
        if self.distillation is not None and self.data.objective.name != "prefix_lm":
            yield Problem("distillation", f"the objective {self.data.objective.name}", "the objective prefix_lm")
        wanted = None if self.average is None else self.average.checkpoints
        if wanted is not None and self.checkpoint.keep < wanted:
            yield Problem("checkpoint.keep", str(self.checkpoint.keep), f"at least average.checkpoints, {wanted}")

    @property
    def ema(self) -> float | None:
        """The decay of the moving average of the weights; None: there is none."""
        return None if self.average is None else self.average.ema

    @property
    def total_steps(self) -> int:
        """Optimiser steps: those given, or as many as it takes to train on `tokens`."""
        return self.steps if self.steps is not None else -(-(self.tokens or 0) // self.batch.tokens)


WITHOUT_EFFECT = (
    "checkpoint",
    "evaluation",
    "logging",
    "parallel",
    "device",
    "threads",
    "activation_checkpointing",
    "compile",
)
"""Fields that may change when a run resumes: the numbers of the steps that have been made do not depend on them."""


def read_recipe(recipe: Recipe | Mapping[str, Any] | str | Path) -> tuple[Recipe, Path]:
    """A recipe, and the folder to which its data's path is relative.

    A document or file may extend a preset of `presets/` by name: `{"extends": "p2-ul2", ...}` is a merge patch on it.
    """
    if isinstance(recipe, Recipe):
        return recipe, Path()
    if isinstance(recipe, Mapping):
        return Recipe.read(resolved(recipe)), Path()
    file = Path(recipe)
    return Recipe.read(resolved(read_json(file)), where=str(file)), file.parent


def resolved(document: Mapping[str, Any]) -> dict[str, Any]:
    """A document merged into the preset that it extends."""
    own = dict(document)
    if "extends" not in own:
        return own
    name = own.pop("extends")
    if name not in recipe_presets():
        hint = suggest(name, recipe_presets())
        raise SpecError(Problem("extends", shorten(name), f"a recipe's preset: {', '.join(recipe_presets())}", hint))
    return dict(merge_patch(read_json(PRESETS / f"{name}.json"), own, Recipe))


def recipe_presets() -> list[str]:
    """Names of the recipes that come with pairform."""
    return sorted(path.stem for path in PRESETS.glob("*.json"))
