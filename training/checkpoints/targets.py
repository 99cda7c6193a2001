"""What a checkpoint is read into: the tensors of a model and its optimisers, in the layout of this run's processes."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from pairform.registry import CheckpointError, Problem, shorten

REMEDY = "Resume with the model, optimiser and precision of the run that wrote it, or start a new run."


class Target:
    """The tensors to read, checked against those that are stored.

    stored: by name, DCP's description of each tensor.
    names:  of the model's parameters.
    """

    def __init__(self, path: Path, stored: Mapping[str, Any], names: Mapping[Tensor, str], optimizers: list[Optimizer]) -> None:
        self.path, self.stored, self.names, self.optimizers = path, stored, names, optimizers
        self.parameters = {name: parameter for parameter, name in names.items()}

    def tensors(self, groups: Any, references: set[str]) -> dict[str, Tensor]:
        """A tensor for each stored one: the model's parameters themselves, and new ones for the rest.

        groups: the stored parameter groups of each optimiser, with references for tensors.
        references: the names of the tensors of the loop's state and of the groups.

        Raises:
            CheckpointError: the stored tensors are not those of this model, these optimisers and this state.
        """
        problems = [*self.missing(), *self.other_groups(groups)]
        problems += [
            self.problem(name, "no such tensor", "one, as state.json says") for name in references - self.stored.keys()
        ]
        wanted: dict[str, Tensor] = {f"model.{name}": parameter.detach() for name, parameter in self.parameters.items()}
        trained = {self.names[each] for optimizer in self.optimizers for each in parameters_of(optimizer)}
        for name, tensor in self.stored.items():
            kind, _, rest = name.partition(".")
            parameter = rest.rpartition(".")[0]
            if kind == "optimizer" and parameter in trained:
                wanted[name] = self.room(self.parameters[parameter], tensor)
            elif name in references:
                wanted[name] = self.room(self.parameters.get(self.named_in(rest)), tensor)
            elif name not in wanted:
                problems.append(self.problem(name, "a tensor that this run does not have", "those of this run"))
        if problems:
            raise CheckpointError(problems)
        return wanted

    def named_in(self, place: str) -> str:
        """The parameter's name that a place in the state ends with, as in an average of the weights; else an empty string."""
        return next((name for name in self.parameters if place.endswith(f".{name}")), "")

    def missing(self, place: str = "model") -> Iterator[Problem]:
        """Parameters that are not stored at this place, or have another shape or dtype there."""
        for name, parameter in self.parameters.items():
            tensor = self.stored.get(f"{place}.{name}")
            if tensor is None:
                yield self.problem(name, "no such tensor", f"one of shape {list(parameter.shape)}")
            elif tuple(tensor.size) != tuple(parameter.shape):
                yield self.problem(name, f"the shape {list(tensor.size)}", f"{list(parameter.shape)}")
            elif tensor.properties.dtype != parameter.dtype:
                yield self.problem(name, word(tensor.properties.dtype), word(parameter.dtype))

    def other_groups(self, groups: Any) -> Iterator[Problem]:
        """Parameter groups that are not those of the optimisers."""
        found = [[group.get("params") for group in each] for each in groups]
        expected = [[[self.names[each] for each in group["params"]] for group in each.param_groups] for each in self.optimizers]
        if found != expected:
            yield Problem(f"{self.path}: groups", "other parameter groups", "those of this run's optimisers", REMEDY)

    def room(self, like: Tensor | None, tensor: Any) -> Tensor:
        """An empty tensor for a stored one: sharded like the parameter if it has its shape, else whole, on the CPU."""
        if like is not None and tuple(tensor.size) == tuple(like.shape):
            return torch.empty_like(like, dtype=tensor.properties.dtype, requires_grad=False)
        return torch.empty(tensor.size, dtype=tensor.properties.dtype)

    def restore(self, optimizer: Optimizer, groups: list[dict[str, Any]], tensors: Mapping[str, Tensor]) -> None:
        """Give an optimiser its stored settings and the tensors that were read."""
        read: dict[str, dict[str, Tensor]] = defaultdict(dict)
        for name, tensor in tensors.items():
            if name.startswith("optimizer."):
                parameter, _, key = name.removeprefix("optimizer.").rpartition(".")
                read[parameter][key] = tensor
        optimizer.state.clear()
        for group, saved in zip(optimizer.param_groups, groups, strict=True):
            for key, value in saved.items():
                if key != "params" and key in group:
                    group[key] = tuple(value) if isinstance(group[key], tuple) else value
            on_device = group.get("fused") or group.get("capturable")
            for parameter in group["params"]:
                for key, value in read.get(self.names[parameter], {}).items():
                    stays = not on_device and (key == "step" or value.shape != parameter.shape)
                    optimizer.state[parameter][key] = value if stays else value.to(parameter.device)

    def problem(self, name: str, found: str, expected: str) -> Problem:
        return Problem(f"{self.path}: {shorten(name)}", found, expected, REMEDY)


def parameters_of(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
