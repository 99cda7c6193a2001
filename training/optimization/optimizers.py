"""Optimisers, and which parameters they decay."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from pairform.training.settings import OptimizerSpec

TABLES = frozenset({"embedding", "position"})
"""Modules of these names hold tables and vectors that are looked up; all other parameters of two or more dimensions multiply
hidden states."""


def is_matrix(name: str, parameter: Tensor) -> bool:
    """Whether a parameter is the weight of a projection, and no norm, bias, embedding or table of positions."""
    return parameter.ndim >= 2 and TABLES.isdisjoint(name.split("."))


def suits_muon(name: str, parameter: Tensor) -> bool:
    """Whether Muon updates a parameter: a matrix of a layer, and no tensor of several experts' matrices."""
    return parameter.ndim == 2 and is_matrix(name, parameter) and "layers" in name.split(".")


class Optimizers:
    """Optimisers of disjoint parameters, stepped together.

    rates:      the peak learning rates of their groups.
    parameters: all of them, listed once: a walk over the modules of a small model takes 3 % of a step.
    """

    def __init__(self, *optimizers: torch.optim.Optimizer) -> None:
        self.each = optimizers
        self.rates = [group["lr"] for group in self.groups()]
        self.parameters: list[nn.Parameter] = [each for group in self.groups() for each in group["params"]]

    def groups(self) -> Iterator[dict[str, Any]]:
        for optimizer in self.each:
            yield from optimizer.param_groups

    def set_rate(self, fraction: float) -> None:
        """Set every learning rate to this fraction of its peak."""
        for group, rate in zip(self.groups(), self.rates, strict=True):
            group["lr"] = fraction * rate

    def zero_grad(self) -> None:
        for optimizer in self.each:
            optimizer.zero_grad()

    def step(self) -> None:
        for optimizer in self.each:
            optimizer.step()


def make_optimizer(model: nn.Module, spec: OptimizerSpec, *, fused: bool = False) -> Optimizers:
    """The optimisers of all parameters, in groups by weight decay.

    Every parameter belongs to one, also those that need no gradient at present: they are skipped, and have no state.

    Args:
        model: The model, on its device.
        spec: The optimiser's settings.
        fused: Use torch's fused kernel for AdamW, which rounds differently. SGD's does not take parameters sharded by FSDP2.
    """
    named = list(model.named_parameters())
    rate, kernel = spec.learning_rate, True if fused else None
    if spec.name == "sgd":
        return Optimizers(torch.optim.SGD(groups(named, spec), rate, momentum=spec.momentum))
    if spec.name == "adamw":
        return Optimizers(torch.optim.AdamW(groups(named, spec), rate, betas=spec.betas, fused=kernel))
    matrices = [parameter for name, parameter in named if suits_muon(name, parameter)]
    rest = [(name, parameter) for name, parameter in named if not suits_muon(name, parameter)]
    found: list[torch.optim.Optimizer] = []
    if matrices:
        settings: dict[str, Any] = {"weight_decay": spec.weight_decay, "momentum": spec.muon_momentum}
        found.append(torch.optim.Muon(matrices, rate, adjust_lr_fn="match_rms_adamw", **settings))
    if rest:
        found.append(torch.optim.AdamW(groups(rest, spec), rate, betas=spec.betas, fused=kernel))
    return Optimizers(*found)


def groups(named: Iterable[tuple[str, nn.Parameter]], spec: OptimizerSpec) -> list[dict[str, Any]]:
    """Groups of parameters with and without weight decay; one group where all have the same."""
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for name, parameter in named:
        (decayed if spec.decayed == "all" or is_matrix(name, parameter) else kept).append(parameter)
    found = [{"params": decayed, "weight_decay": spec.weight_decay}, {"params": kept, "weight_decay": 0.0}]
    return [group for group in found if group["params"]]
