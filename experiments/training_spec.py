"""How a trial is trained, as JSON. Nothing here needs torch, so that a study's folder can be read without it."""

from typing import Annotated, Literal, Self

from pydantic import Field, Strict, model_validator

from pairform.registry import PositiveFloat, PositiveInt, Probability, Problem, Spec, nested, shorten

Count = Annotated[int, Field(ge=0, lt=2**31)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Threads = Annotated[int, Field(gt=0, le=1024)]


def check_unread(spec: Spec, of: str, *fields: str) -> None:
    """Refuse fields that `of` does not have and that are not at their defaults."""
    given = {name: getattr(spec, name) for name in fields if getattr(spec, name) != type(spec).model_fields[name].default}
    if given:
        expected = f"the default: {of} does not have it"
        raise nested([Problem(name, shorten(value), expected) for name, value in given.items()])


class OptimizerSpec(Spec):
    """torch's optimiser of that name. `betas` are AdamW's, `momentum` is SGD's; the other's must stay as it is."""

    name: Literal["adamw", "sgd"] = "adamw"
    learning_rate: PositiveFloat = 1e-3
    weight_decay: NotNegative = 0.0
    betas: Annotated[tuple[Probability, Probability], Strict(False)] = (0.9, 0.95)
    momentum: Probability = 0.0

    @model_validator(mode="after")
    def _its_own_fields(self) -> Self:
        check_unread(self, self.name, "momentum" if self.name == "adamw" else "betas")
        return self


class ScheduleSpec(Spec):
    """The learning rate: up in a line over `warmup` steps, then as `name` says down to `final` of the highest."""

    name: Literal["constant", "linear", "cosine"] = "cosine"
    warmup: Count = 0
    final: Annotated[float, Field(ge=0, le=1)] = 0.1

    @model_validator(mode="after")
    def _its_own_fields(self) -> Self:
        if self.name == "constant":
            check_unread(self, self.name, "final")
        return self


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
