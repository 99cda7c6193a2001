"""Distributions of newly initialised parameters, as blocks declare them. `assemblies` draws the values."""

from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from pairform.registry import Spec


class Constant(Spec):
    """Every element is `value`."""

    name: Literal["constant"] = "constant"
    value: float = Field(default=0.0, description="Value of every element.")


class Normal(Spec):
    """Independent elements from a normal distribution with mean zero."""

    name: Literal["normal"] = "normal"
    std: float = Field(description="Standard deviation.")


Initial = Annotated[Constant | Normal, Field(discriminator="name")]


def initial_of(module: nn.Module, parameter: str, spread: float) -> Constant | Normal:
    """The distribution of `module.<parameter>` in a new model; `spread` is the model's `initializer_range`.

    A module with a method `initial(parameter, spread)` decides itself. In all others `bias` is zero and other parameters are
    normal with standard deviation `spread`, which a residual may scale down (`initial_scale`).
    """
    decide = getattr(module, "initial", None)
    if decide is not None:
        chosen: Constant | Normal = decide(parameter, spread)
        return chosen
    return Constant() if parameter == "bias" else Normal(std=spread * getattr(module, "initial_scale", 1.0))
