"""Phases of training in which only some parameters train, such as the warm-up of new cross-attention."""

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import accumulate
from typing import Annotated

from pydantic import Field, Strict
from torch import nn

from pairform.registry import PositiveInt, Problem, Spec


class PhaseSpec(Spec):
    """Steps in which only some parameters train."""

    steps: PositiveInt = Field(description="Steps of the phase.")
    train: Annotated[tuple[str, ...], Strict(False), Field(min_length=1)] = Field(
        description="Patterns of the parameters that train, such as `decoder.layers.*.cross_attention.*`."
    )


def check_patterns(where: str, patterns: Sequence[str], names: Sequence[str]) -> Iterator[Problem]:
    """Patterns that match none of a model's parameters. where: their place in the recipe."""
    for index, pattern in enumerate(patterns):
        if not any(fnmatchcase(name, pattern) for name in names):
            example = next((name for name in names if "layers" in name), names[0])
            yield Problem(f"{where}[{index}]", repr(pattern), f"a pattern that matches a parameter, such as {example}")


def phase_of(phases: Sequence[PhaseSpec], step: int) -> PhaseSpec | None:
    """The phase of a step, from 0; None after the last, where all parameters train."""
    ends = accumulate(phase.steps for phase in phases)
    return next((phase for phase, end in zip(phases, ends, strict=True) if step < end), None)


def set_trained(model: nn.Module, phase: PhaseSpec | None, frozen: Sequence[str] = ()) -> None:
    """Let only the parameters of a phase train, or all for None; those that match `frozen` never do.

    Parameters that do not train get no gradient, and so no optimiser state.
    """
    for name, parameter in model.named_parameters():
        trains = (phase is None or matches(name, phase.train)) and not matches(name, frozen)
        parameter.requires_grad_(trains)
        if not trains:
            parameter.grad = None


def matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
