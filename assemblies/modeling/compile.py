"""Layers compiled one by one, those of one kind sharing their code."""

import inspect
from typing import Any

import torch
from torch import nn

from pairform.assemblies.modeling.stack import Stack

MODES = 8
"""In how many ways one layer may be run: in training or not, with gradients or not, with masks or without, and some more."""


def compile_layers(model: nn.Module, **options: Any) -> None:
    """`torch.compile(dynamic=True)` for each layer: one compilation for each kind of layer and mode, whatever the lengths."""
    stacks = [module for module in model.modules() if isinstance(module, Stack)]
    options = {"dynamic": True, **options}
    if "recompile_limit" in inspect.signature(torch.compile).parameters:  # or a model of many kinds would end up eager
        kinds = sum(len(set(map(id, stack.spec.layers))) for stack in stacks)
        options.setdefault("recompile_limit", MODES * kinds)
    for stack in stacks:
        for layer in stack.layers:
            layer.compile(**options)
