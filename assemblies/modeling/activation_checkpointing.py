"""Which layers keep nothing for the backward pass but their input, and are computed again there."""

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

from torch import nn

from pairform.assemblies.modeling.stack import Stack
from pairform.registry import InputError, Problem

Layers: TypeAlias = Literal["all", "none"] | int | Sequence[int]
"""Every layer, none, every so-many-th from the first on, or these by number (from 0, or from -1 for the last)."""


def checkpoint_layers(model: nn.Module, layers: Layers | Mapping[str, Layers] = "all") -> None:
    """Set it for all stacks of `model` alike, or by stack, such as `{"decoder": 2}`; a stack that is not named has none."""
    stacks = {name: module for name, module in model.named_modules() if isinstance(module, Stack)}
    wanted = layers if isinstance(layers, Mapping) else dict.fromkeys(stacks, layers)
    problems = [
        Problem(f"checkpoint_layers.{name}", "no such stack", f"one of {', '.join(stacks)}")
        for name in wanted
        if name not in stacks
    ]
    if problems:
        raise InputError(problems)
    chosen = {name: numbers(wanted.get(name, "none"), len(stack.layers)) for name, stack in stacks.items()}
    for name, stack in stacks.items():
        stack.checkpointed = chosen[name]


def numbers(layers: Layers, depth: int) -> frozenset[int]:
    """Numbers from 0 of the layers that are meant in a stack of `depth`."""
    if layers == "none":
        return frozenset()
    if layers == "all":
        layers = 1
    if isinstance(layers, int) and layers > 0:
        return frozenset(range(0, depth, layers))
    if isinstance(layers, str | int) or any(not -depth <= layer < depth for layer in layers):
        expected = f'"all", "none", 1 or more, or layer numbers from {-depth} to {depth - 1}'
        raise InputError(Problem("checkpoint_layers", repr(layers), expected))
    return frozenset(layer % depth for layer in layers)
