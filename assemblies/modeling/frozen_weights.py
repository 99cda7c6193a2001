"""Linear layers with constant weights (quantised or prepacked), for inference only: they cannot be trained or saved."""

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from pairform.registry import Problem


class ConstantLinear(nn.Linear):
    """Base of such layers. held: a description of the weights, for errors. option: the option of `load` that creates them."""

    held: ClassVar[str]
    option: ClassVar[str]

    def check_apply(self, function: Callable[[Tensor], Tensor]) -> None:
        """Raise `InputError` for a conversion (`model.to`) that these weights do not support."""


def put_constant(model: nn.Module, kind: type[ConstantLinear], suits: Callable[[nn.Linear], bool]) -> set[str]:
    """Replace the linear layers of a skeleton's stacks for which `suits` is true by layers of `kind`; freeze all parameters.

    Embeddings, the head (tied or not), norms and bridges stay. Returns the names of the weights of the replaced layers.
    """
    layers = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not name.startswith("head.") and suits(module)
    ]
    for name, module in layers:
        with torch.device("meta"):
            layer = kind(module.in_features, module.out_features, module.bias is not None)
        model.set_submodule(name, layer.to(module.weight.dtype).train(module.training))
    model.requires_grad_(False)
    return {f"{name}.weight" for name, _ in layers}


def constant_weights(model: nn.Module, where: str, *, why: str = "", instead: str = "Load it again") -> Problem | None:
    """The problem with a model that has such layers, for a use that needs plain weights; None if it has none."""
    layer = next((module for module in model.modules() if isinstance(module, ConstantLinear)), None)
    return None if layer is None else Problem(where, layer.held + why, "plain weights", f"{instead} without {layer.option}.")
