"""Averages of weights: an exponential moving average during training, and the mean of the last checkpoints."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from pairform.registry import PositiveInt, Problem, Spec, nested

Decay = Annotated[float, Field(gt=0, lt=1)]


class AverageSpec(Spec):
    """Which average of the weights is evaluated and exported. Exactly one field is given."""

    ema: Decay | None = Field(
        default=None, description="Decay of an exponential moving average of the weights, updated after every step."
    )
    checkpoints: PositiveInt | None = Field(
        default=None, description="Number of last checkpoints whose mean is exported; they are kept."
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [name for name in ("ema", "checkpoints") if getattr(self, name) is not None]
        if len(given) != 1:
            raise nested([Problem("", " and ".join(given) or "neither field", "one of ema and checkpoints")])
        return self


class MovingAverage:
    """An exponential moving average of a model's parameters, in at least float32, as long as the parameters on each process."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {name: wide_copy(parameter) for name, parameter in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        for name, parameter in model.named_parameters():
            average = self.values[name]
            average.lerp_(parameter.detach().to(average.dtype), 1 - self.decay)

    @contextlib.contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Give the model the averaged weights for a while, as in evaluation and export."""
        own = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(self.values[name])
        try:
            yield
        finally:
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    parameter.copy_(own[name])


def wide_copy(parameter: Tensor) -> Tensor:
    return parameter.detach().to(torch.promote_types(parameter.dtype, torch.float32), copy=True)


def mean(states: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of tensors by name, summed in at least float32 and returned in their own dtypes; one state is read at a time."""
    total: dict[str, Tensor] = {}
    dtypes: dict[str, torch.dtype] = {}
    count = 0
    for state in states:
        count += 1
        for name, tensor in state.items():
            dtypes[name] = tensor.dtype
            total[name] = total[name] + tensor if name in total else wide_copy(tensor)
    return {name: (tensor / count).to(dtypes[name]) for name, tensor in total.items()}
