"""Linear layers whose weights are held in a form to run with, which nothing trains, saves or carries on."""

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from pairform.registry import Problem


class ConstantLinear(nn.Linear):
    """Base of such layers. held: what their weights are, in words. option: of `load`, which makes them so."""

    held: ClassVar[str]
    option: ClassVar[str]

    def check_apply(self, function: Callable[[Tensor], Tensor]) -> None:
        """Refuse a conversion (`model.to`) that the weight's form does not allow."""


def put_constant(model: nn.Module, kind: type[ConstantLinear], suits: Callable[[nn.Linear], bool]) -> set[str]:
    """Replace the linear layers of a skeleton's stacks that suit by those of `kind`, and freeze all parameters.

    Embeddings, a head (tied or not), norms and bridges stay. The answer names the weights of the layers replaced.
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


def check_apply(model: nn.Module, function: Callable[[Tensor], Tensor]) -> None:
    """Refuse a conversion that some layer does not allow, before any has been changed."""
    for module in model.modules():
        if isinstance(module, ConstantLinear):
            module.check_apply(function)


def constant_weights(model: nn.Module, where: str, *, why: str = "", instead: str = "Load it again") -> Problem | None:
    """What is wrong with a model that has such layers, for a use that needs plain weights; None if it has none."""
    layer = next((module for module in model.modules() if isinstance(module, ConstantLinear)), None)
    return None if layer is None else Problem(where, layer.held + why, "plain weights", f"{instead} without {layer.option}.")
