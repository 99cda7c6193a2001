"""Training settings as JSON. Importing them needs no torch, so that a study's folder can be read without it."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, Strict

from pairform.registry import PositiveFloat, PositiveInt, Probability, Problem, Spec, SpecError, shorten

Count = Annotated[int, Field(ge=0, lt=2**31)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Threads = Annotated[int, Field(gt=0, le=1024)]


class OptimizerSpec(Spec):
    """The optimiser, one of torch's."""

    name: Literal["adamw", "sgd", "muon"] = Field(
        default="adamw",
        description="Optimiser. muon: Muon for the matrices inside the layers, with updates scaled to the size of AdamW's "
        "(Liu et al. 2025, arXiv 2502.16982), and AdamW for all other parameters.",
    )
    learning_rate: PositiveFloat = Field(default=1e-3, description="Peak learning rate.")
    weight_decay: NotNegative = Field(default=0.0, description="Decoupled weight decay (AdamW, Muon) or L2 penalty (SGD).")
    decayed: Literal["all", "matrices"] = Field(
        default="all",
        description="Parameters with weight decay. matrices: the weights of projections, and neither norms, biases nor "
        "embeddings.",
    )
    betas: Annotated[tuple[Probability, Probability], Strict(False)] = Field(
        default=(0.9, 0.95), description="AdamW's decay rates of the running averages."
    )
    momentum: Probability = Field(default=0.0, description="SGD's momentum.")
    muon_momentum: Probability = Field(default=0.95, description="Muon's Nesterov momentum.")


class ScheduleSpec(Spec):
    """The learning-rate schedule: linear warmup, then decay."""

    name: Literal["constant", "linear", "cosine", "wsd"] = Field(
        default="cosine",
        description="Shape of the decay. wsd: constant, then linear decay over the last steps (Hägele et al. 2024, arXiv "
        "2405.18392).",
    )
    warmup: Count = Field(default=0, description="Steps of linear warmup.")
    final: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.1, description="Final learning rate as a fraction of the peak."
    )
    decay: Annotated[float, Field(gt=0, le=1)] = Field(default=0.2, description="wsd's decay as a fraction of all steps.")


class PhaseSpec(Spec):
    """Steps in which only some parameters train."""

    steps: PositiveInt = Field(description="Steps of the phase.")
    train: Annotated[tuple[str, ...], Strict(False), Field(min_length=1)] = Field(
        description="Patterns of the parameters that train, such as `decoder.layers.*.cross_attention.*`."
    )


class TrainingSpec(Spec):
    """How a model is trained."""

    steps: Count = Field(default=1000, description="Optimiser steps; 0 measures the model as initialised.")
    batch: PositiveInt = Field(default=32, description="Examples per step.")
    optimizer: OptimizerSpec = Field(default=OptimizerSpec(), description="Optimiser and its learning rate.")
    schedule: ScheduleSpec = Field(default=ScheduleSpec(), description="Learning-rate schedule.")
    clip: PositiveFloat | None = Field(default=None, description="Norm to which gradients are clipped. Default: no clipping.")
    phases: Annotated[tuple[PhaseSpec, ...], Strict(False)] = Field(
        default=(), description="Phases at the beginning, in which only some parameters train."
    )
    frozen: Annotated[tuple[str, ...], Strict(False)] = Field(
        default=(), description="Patterns of parameters that never train, such as `*.embedding.*`."
    )
    dtype: Literal["float32", "bfloat16"] = Field(
        default="float32", description="Compute dtype; weights are float32 in any case."
    )
    device: str = Field(default="cpu", description="Torch device.")
    log_every: PositiveInt = Field(default=10, description="Steps between records of the training loss.")
    evaluate_every: PositiveInt | None = Field(
        default=None, description="Steps between validations. Default: one, after the last step."
    )
    checkpoint_every: PositiveInt | None = Field(
        default=None,
        description="Steps between checkpoints, from which an interrupted trial resumes. Default: it starts again.",
    )
    compile: bool = Field(
        default=False,
        description="Compile each layer for training. Batches are then padded to the longest lengths of the data.",
    )
    threads: Threads = Field(
        default=1,
        description="Torch's CPU threads per trial. Floating-point sums depend on it, so it is not taken from the machine.",
    )


IGNORED: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "optimizer": {"adamw": ("momentum", "muon_momentum"), "sgd": ("betas", "muon_momentum"), "muon": ("momentum",)},
    "schedule": {"constant": ("final", "decay"), "linear": ("decay",), "cosine": ("decay",)},
}
"""Fields that an optimiser or schedule of that name ignores."""


def check_ignored(settings: TrainingSpec, *documents: Mapping[str, Any]) -> None:
    """Raise `SpecError` if one of the `documents` that led to `settings` sets a field that has no effect.

    A field that was set for another optimiser or schedule, before a patch changed the name, may stay.
    """
    problems = [problem for document in documents for problem in ignored(settings, document)]
    if problems:
        raise SpecError([problem.inside("training") for problem in dict.fromkeys(problems)])


def ignored(settings: TrainingSpec, document: Mapping[str, Any]) -> Iterator[Problem]:
    training = document.get("training")
    parts: dict[str, OptimizerSpec | ScheduleSpec] = {"optimizer": settings.optimizer, "schedule": settings.schedule}
    for part, chosen in parts.items():
        given = training.get(part) if isinstance(training, Mapping) else None
        if not isinstance(given, Mapping) or given.get("name", chosen.name) != chosen.name:
            continue
        for field in IGNORED[part].get(chosen.name, ()):
            value = getattr(chosen, field)
            if field in given and value != type(chosen).model_fields[field].default:
                yield Problem(f"{part}.{field}", shorten(value), f"the default: {chosen.name} does not have it")
