"""How a trial is trained, as JSON. Nothing here needs torch, so that a study's folder can be read without it."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, Strict

from pairform.registry import PositiveFloat, PositiveInt, Probability, Problem, Spec, SpecError, shorten

Count = Annotated[int, Field(ge=0, lt=2**31)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Threads = Annotated[int, Field(gt=0, le=1024)]


class OptimizerSpec(Spec):
    """torch's optimiser of that name. `betas` are AdamW's, `momentum` is SGD's."""

    name: Literal["adamw", "sgd"] = "adamw"
    learning_rate: PositiveFloat = 1e-3
    weight_decay: NotNegative = 0.0
    betas: Annotated[tuple[Probability, Probability], Strict(False)] = (0.9, 0.95)
    momentum: Probability = 0.0


class ScheduleSpec(Spec):
    """The learning rate: up in a line over `warmup` steps, then as `name` says down to `final` of the highest."""

    name: Literal["constant", "linear", "cosine"] = "cosine"
    warmup: Count = 0
    final: Annotated[float, Field(ge=0, le=1)] = 0.1


class TrainingSpec(Spec):
    """How a trial is trained.

    steps:          of the optimiser; with 0 a fresh model is measured.
    batch:          examples a step.
    clip:           the norm that gradients are cut to; absent, they are not.
    dtype:          in which is computed; weights are float32 throughout.
    log_every:      steps from one line of training loss to the next.
    evaluate_every: steps from one validation to the next; absent, only the last step is followed by one.
    threads:        of torch, in each trial. Sums depend on it, so it does not follow from the machine.
    """

    steps: Count = 1000
    batch: PositiveInt = 32
    optimizer: OptimizerSpec = OptimizerSpec()
    schedule: ScheduleSpec = ScheduleSpec()
    clip: PositiveFloat | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: str = "cpu"
    log_every: PositiveInt = 10
    evaluate_every: PositiveInt | None = None
    threads: Threads = 1


UNREAD: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "optimizer": {"adamw": ("momentum",), "sgd": ("betas",)},
    "schedule": {"constant": ("final",)},
}
"""The fields that an optimiser or a schedule does not have, by its name."""


def check_written(settings: TrainingSpec, *documents: Mapping[str, Any]) -> None:
    """Refuse what one of `documents`, whose patches made `settings`, sets to no effect: a field that the chosen optimiser or
    schedule does not have. One that was set for another, before a patch changed the name, may stay."""
    problems = [problem for document in documents for problem in unread(settings, document)]
    if problems:
        raise SpecError([problem.inside("training") for problem in dict.fromkeys(problems)])


def unread(settings: TrainingSpec, document: Mapping[str, Any]) -> Iterator[Problem]:
    written = document.get("training")
    for part, fields in UNREAD.items():
        chosen = getattr(settings, part)
        given = written.get(part) if isinstance(written, Mapping) else None
        if not isinstance(given, Mapping) or given.get("name", chosen.name) != chosen.name:
            continue
        for field in fields.get(chosen.name, ()):
            value = getattr(chosen, field)
            if field in given and value != type(chosen).model_fields[field].default:
                yield Problem(f"{part}.{field}", shorten(value), f"the default: {chosen.name} does not have it")
