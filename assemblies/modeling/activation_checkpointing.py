"""Activation checkpointing: the choice of layers that are recomputed in the backward pass."""

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

from torch import nn

from pairform.assemblies.modeling.stack import Stack
from pairform.registry import InputError, Problem

Layers: TypeAlias = Literal["all", "none"] | int | Sequence[int]
"""All layers, none, every n-th from the first on, or layer numbers (from 0, or negative from the last)."""


def checkpoint_layers(model: nn.Module, layers: Layers | Mapping[str, Layers] = "all") -> None:
    """Choose the checkpointed layers of all stacks of `model`, or by stack, such as `{"decoder": 2}`; others then have none.

    Raises:
        InputError: an unknown stack, or layers that it does not have.
    """
    stacks = {name: module for name, module in model.named_modules() if isinstance(module, Stack)}
    requested = layers if isinstance(layers, Mapping) else dict.fromkeys(stacks, layers)
    problems = [
        Problem(f"checkpoint_layers.{name}", "no such stack", f"one of {', '.join(stacks)}")
        for name in requested
        if name not in stacks
    ]
    if problems:
        raise InputError(problems)
    chosen = {name: numbers(requested.get(name, "none"), len(stack.layers)) for name, stack in stacks.items()}
    for name, stack in stacks.items():
        stack.checkpointed = chosen[name]


def numbers(layers: Layers, depth: int) -> frozenset[int]:
    """The layer numbers, from 0, that `layers` stands for in a stack of `depth` layers."""
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
