"""Compilation of single layers, with shared code for layers of one kind."""

import inspect
from typing import Any

import torch
from torch import nn

from pairform.assemblies.modeling.stack import Stack

MODES = 8
"""Compilations per kind of layer: in training or not, with gradients or not, with masks or without, and some more."""


def compile_layers(model: nn.Module, **options: Any) -> None:
    """`torch.compile(dynamic=True)` for each layer: one compilation per kind of layer and mode, for all lengths."""
    stacks = [module for module in model.modules() if isinstance(module, Stack)]
    options = {"dynamic": True, **options}
    if "recompile_limit" in inspect.signature(torch.compile).parameters:  # beyond the limit layers run eagerly
        kinds = sum(len(set(map(id, stack.spec.layers))) for stack in stacks)
        options.setdefault("recompile_limit", MODES * kinds)
    for stack in stacks:
        for layer in stack.layers:
            layer.compile(**options)
