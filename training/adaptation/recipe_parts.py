"""The parts of a recipe: its model, data, batches, checkpoints, evaluation, processes and logging."""

from typing import Annotated, Any, Literal

from pydantic import Field

from pairform.assemblies.initialisation.options import Options
from pairform.registry import Patch, PositiveFloat, PositiveInt, Spec
from pairform.training.data.objectives import AnyObjective
from pairform.training.settings import OptimizerSpec

WandbName = Annotated[str, Field(pattern=r"^[^/\\#?%:\x00-\x1f]{1,128}$")]


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
    micro: PositiveInt = Field(default=1, description="Most rows of one forward pass on one process.")


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


class WandbSpec(Spec):
    """A run on Weights & Biases. Its entity and server are those that the user of `wandb` has chosen."""

    project: WandbName = Field(description="Project on Weights & Biases.")
    name: WandbName | None = Field(default=None, description="Name of the run there. Default: one that it makes up.")


class LoggingSpec(Spec):
    """Where metrics go besides `metrics.jsonl`."""

    tensorboard: bool = Field(default=False, description="Also log for TensorBoard.")
    wandb: WandbSpec | None = Field(default=None, description="Also log to Weights & Biases, through the package `wandb`.")
    peak_tflops: PositiveFloat | None = Field(
        default=None,
        description="Peak TFLOP/s of one device in the recipe's precision, for the MFU. Default: that of a known accelerator.",
    )
