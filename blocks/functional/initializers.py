"""How fresh parameters are distributed. A block says so itself; drawing the values is the assemblies' work."""

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
    """The distribution of `module.<parameter>` when fresh; `spread` is the model's `initializer_range`.

    A module with a method `initial(parameter, spread)` decides itself; in all others, `bias` is zero and the rest normal,
    with a deviation that a residual may have made smaller (`initial_scale`).
    """
    decide = getattr(module, "initial", None)
    if decide is not None:
        chosen: Constant | Normal = decide(parameter, spread)
        return chosen
    return Constant() if parameter == "bias" else Normal(std=spread * getattr(module, "initial_scale", 1.0))
