"""Phases of training in which only some parameters train, such as the warm-up of new cross-attention."""

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import accumulate

from torch import nn

from pairform.registry import Problem
from pairform.training.settings import PhaseSpec as PhaseSpec


def check_phases(phases: Sequence[PhaseSpec], frozen: Sequence[str], names: Sequence[str]) -> Iterator[Problem]:
    """Patterns that match none of a model's parameters, and phases in which no parameter trains."""
    for index, phase in enumerate(phases):
        yield from check_patterns(f"phases[{index}].train", phase.train, names)
    yield from check_patterns("frozen", frozen, names)
    for index, each in enumerate([*phases, None]):
        if not any(trains(name, each, frozen) for name in names):
            where = "frozen" if each is None else f"phases[{index}].train"
            yield Problem(where, "no parameter that trains", "patterns that leave at least one")


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
        parameter.requires_grad_(trains(name, phase, frozen))
        if not parameter.requires_grad:
            parameter.grad = None


def trains(name: str, phase: PhaseSpec | None, frozen: Sequence[str]) -> bool:
    """Whether the parameter of that name trains in a phase, or after all for None."""
    return (phase is None or matches(name, phase.train)) and not matches(name, frozen)


def matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
