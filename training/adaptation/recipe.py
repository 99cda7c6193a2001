"""A recipe as JSON: how a model is adapted (continued pretraining), trained from nothing, or fine-tuned."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, Strict, model_validator

from pairform.assemblies.initialisation.options import Options
from pairform.registry import (
    Patch,
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
from pairform.training.data.objectives import AnyObjective
from pairform.training.optimization.averaging import AverageSpec
from pairform.training.optimization.phases import PhaseSpec
from pairform.training.optimization.spikes import SkipSpec
from pairform.training.settings import Count, OptimizerSpec, ScheduleSpec, Threads

PRESETS = Path(__file__).resolve().parent / "recipes"
Globs = Annotated[tuple[str, ...], Strict(False)]


class AdaptationOptimizer(OptimizerSpec):
    """The optimiser, one of torch's."""

    learning_rate: PositiveFloat = Field(default=1e-4, description="Peak learning rate.")
    decayed: Literal["all", "matrices"] = Field(
        default="matrices",
        description="Parameters with weight decay. matrices: the weights of projections, and neither norms, biases nor "
        "embeddings.",
    )


class ConversionSpec(Options):
    """The arguments of `pairform convert`."""

    encoder: str | None = Field(default=None, description="Source of the encoder: a folder or hub id.")
    decoder: str | None = Field(default=None, description="Source of the decoder: a folder or hub id.")
    vision: str | None = Field(default=None, description="Source of the vision tower, if the encoder's source has none.")
    spec: str | None = Field(default=None, description="Spec of the model: a preset or a file. Default: that of the sources.")
    patch: Patch = Field(default_factory=dict, description="Merge patch on the spec.")
    revisions: dict[str, str] = Field(default_factory=dict, description="Hub revisions of the sources, by `encoder`, ...")

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of `convert`, without `out`."""
        own = {name: getattr(self, name) for name in ("encoder", "decoder", "vision", "spec", "patch", "revisions")}
        shared = {name: getattr(self, name) for name in Options.model_fields}
        return own | {"options": Options.model_construct(**shared)}


class Converted(Spec):
    """A model that is converted at the start of the run."""

    convert: ConversionSpec = Field(description="Sources and options of the conversion.")


class DataSpec(Spec):
    """What the model is trained on."""

    shards: str = Field(description="Folder made by `pairform data prepare`, relative to the recipe's folder.")
    objective: AnyObjective = Field(description="How a window of text becomes a source and a target.")
    verify: bool = Field(default=True, description="Compare the SHA-256 of every file of the shards before training.")


class BatchSpec(Spec):
    """The batch of a step, over all processes."""

    tokens: PositiveInt = Field(description="Source and target tokens of the global batch.")
    micro: PositiveInt = Field(default=1, description="Rows of one forward pass on one process.")


class CheckpointSpec(Spec):
    """When training can resume from."""

    every: PositiveInt = Field(default=500, description="Steps between checkpoints. The last step has one, too.")
    keep: PositiveInt = Field(default=2, description="Number of last checkpoints that are kept.")
    keep_every: PositiveInt | None = Field(
        default=None, description="Also keep the checkpoints of multiples of this number of steps. Default: none."
    )


class SampleSpec(Spec):
    """Texts that the model generates at each evaluation, into `samples.jsonl`."""

    prompts: Annotated[int, Field(gt=0, le=64)] = Field(default=2, description="Number of held-out sources.")
    max_new_tokens: PositiveInt = Field(default=32, description="Tokens to generate.")


class EvaluationSpec(Spec):
    """Held-out loss."""

    every: PositiveInt = Field(default=500, description="Steps between evaluations. The last step has one, too.")
    rows: PositiveInt = Field(default=64, description="Number of held-out rows.")
    objectives: dict[str, AnyObjective] = Field(
        default_factory=dict, description="Further objectives by name, each with a loss of its own."
    )
    generate: SampleSpec | None = Field(default=None, description="Generate samples, too. Default: none.")


class ParallelSpec(Spec):
    """How processes share the work. Their number is `shard` times `replicate`."""

    shard: PositiveInt | Literal["all"] = Field(
        default="all", description="Processes over which parameters, gradients and optimiser states are sharded (FSDP2)."
    )
    replicate: PositiveInt = Field(default=1, description="Groups of such processes, each with a full copy.")


class LoggingSpec(Spec):
    """Where metrics go besides `metrics.jsonl`."""

    tensorboard: bool = Field(default=False, description="Also log for TensorBoard.")


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
        wanted = None if self.average is None else self.average.checkpoints
        if wanted is not None and self.checkpoint.keep < wanted:
            yield Problem("checkpoint.keep", str(self.checkpoint.keep), f"at least average.checkpoints, {wanted}")

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
