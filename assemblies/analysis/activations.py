"""Bytes that a training step keeps for its backward pass, by layer, without allocating them."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from pairform.assemblies.analysis.flops import FlopCounter
from pairform.assemblies.analysis.inspection import source_layers, with_layers
from pairform.assemblies.analysis.substitutes import Substitutes
from pairform.assemblies.modeling.base import Layers, layer_numbers
from pairform.assemblies.modeling.build import skeleton
from pairform.assemblies.modeling.model import Model
from pairform.assemblies.specs.model import ModelSpec, StackSpec
from pairform.blocks.functional.plain import META

Arithmetic = Literal["float32", "bfloat16", "autocast"]
"""The dtype of weights and computation; `autocast`: float32 weights, and products in bfloat16."""


@dataclass(frozen=True)
class LayerActivations:
    """Bytes of one layer.

    kept:  what its backward pass reads, as far as no earlier layer keeps it too.
    input: its input, which is all that activation checkpointing keeps.
    """

    kept: int = 0
    input: int = 0


@dataclass(frozen=True)
class Activations:
    """Bytes that one forward pass keeps for the backward pass.

    outside: of embeddings, final norms, bridge and head.
    layers:  of each layer, by its stack.
    """

    outside: int
    layers: Mapping[str, tuple[LayerActivations, ...]]

    def kept(self, checkpointed: Layers = "none") -> int:
        """Bytes at the end of the forward pass, with activation checkpointing of these layers of every stack."""
        return self.outside + sum(
            layer.input if number in layer_numbers(checkpointed, len(layers)) else layer.kept
            for layers in self.layers.values()
            for number, layer in enumerate(layers)
        )

    def working(self, checkpointed: Layers = "none") -> int:
        """Bytes that the backward pass adds to those: gradients of the largest layer's activations; these activations
        themselves where they are recomputed."""
        sizes = [
            (layer.kept, number in layer_numbers(checkpointed, len(layers)))
            for layers in self.layers.values()
            for number, layer in enumerate(layers)
        ]
        return round(max((kept * (BACKWARD + recomputed) for kept, recomputed in sizes), default=0))


BACKWARD = 0.3
"""Gradients of activations that exist at the same time, as a part of a layer's activations. Measured on CPUs."""


def measure_activations(
    spec: ModelSpec,
    *,
    rows: int,
    source_length: int,
    target_length: int,
    arithmetic: Arithmetic = "float32",
    fused: bool = False,
    frozen: Iterable[str] = (),
) -> Activations:
    """Run a forward pass in training on the meta device, and sum the tensors that autograd saves.

    Equal layers cost the same, so one or two of each kind run: the first also has what all layers share, such as tables of
    positions.

    Args:
        spec: the model.
        rows: rows of the batch.
        source_length: tokens of each row that an encoder reads.
        target_length: tokens of each row that a decoder reads.
        arithmetic: how the model computes.
        fused: norms and attention are single operations, as on CUDA devices.
        frozen: patterns of parameters that get no gradient.
    """
    runs = {path: kinds_of(stack) for path, stack in spec.stacks.items()}
    model = skeleton(
        with_layers(spec, lambda path, stack: tuple(stack.layers[run[0]] for run in runs.get(path, kinds_of(stack)))),
        torch.bfloat16 if arithmetic == "bfloat16" else torch.float32,
    ).train()
    model.source_layers = source_layers(spec)
    freeze(model, tuple(frozen), runs)
    stands_for = META.set("cuda" if fused else "cpu")
    try:
        with watched(model) as (found, inputs), Substitutes(arithmetic == "autocast", fused), FlopCounter():
            model(**batch_of(spec, rows, source_length, target_length))
    finally:
        META.reset(stands_for)
    layers: dict[str, tuple[LayerActivations, ...]] = {}
    for path, stack in spec.stacks.items():
        each = [LayerActivations()] * stack.depth
        for index, run in enumerate(runs[path]):
            name = f"{path}.layers.{index}"
            for number in run:
                each[number] = LayerActivations(found.get(name, 0), inputs.get(name, 0))
            found.pop(name, None)
        layers[path] = tuple(each)
    return Activations(sum(found.values()), layers)


def kinds_of(stack: StackSpec) -> list[list[int]]:
    """The numbers of the layers that each layer of the shortened stack stands for: the first of each kind, then the others."""
    kinds: dict[Any, list[int]] = {}
    for number, layer in enumerate(stack.layers):
        kinds.setdefault(layer, []).append(number)
    return [[numbers[0]] for numbers in kinds.values()] + [numbers[1:] for numbers in kinds.values() if len(numbers) > 1]


def freeze(model: Model, frozen: tuple[str, ...], runs: Mapping[str, list[list[int]]]) -> None:
    """Exclude the parameters that match a pattern from training; one of several layers, if it does in all of them."""
    for name, parameter in model.named_parameters():
        path, *rest = name.split(".")
        names = [name]
        if path in runs and rest[0] == "layers":
            names = [".".join((path, "layers", str(number), *rest[2:])) for number in runs[path][int(rest[1])]]
        if all(any(fnmatchcase(each, pattern) for pattern in frozen) for each in names):
            parameter.requires_grad_(False)


def batch_of(spec: ModelSpec, rows: int, source_length: int, target_length: int) -> dict[str, Tensor]:
    """The arguments of the forward pass, as in training."""
    ids, labels = (torch.zeros(rows, length, dtype=torch.long, device="meta") for length in (source_length, target_length))
    if spec.encoder is None:
        ids = labels
    elif spec.decoder is None:
        labels = ids
    counted = torch.ones((), dtype=torch.long, device="meta")
    return {"input_ids": ids, "attention_mask": ids > -1, "labels": labels, "loss_tokens": counted}


@contextmanager
def watched(model: Model) -> Iterator[tuple[dict[str, int], dict[str, int]]]:
    """Bytes of the tensors that autograd saves, and of the inputs of layers, by the layer's path; "" is outside of layers.

    A storage counts once, where it is saved first. Parameters do not count.
    """
    found: dict[str, int] = {}
    inputs: dict[str, int] = {}
    running = [""]
    parameters = {each.untyped_storage()._cdata for each in (*model.parameters(), *model.buffers())}
    seen: dict[int, Tensor] = {}  # the tensors too, so that no storage is freed and its address used again

    def save(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in parameters and storage._cdata not in seen:
            seen[storage._cdata] = tensor
            found[running[-1]] = found.get(running[-1], 0) + storage.nbytes()
        return tensor

    hooks: list[Any] = []
    for path, stack in (("encoder", model.encoder), ("decoder", model.decoder)):
        for index, layer in enumerate(() if stack is None else stack.layers):
            hooks += follow(layer, f"{path}.layers.{index}", running, inputs)
    try:
        with saved_tensors_hooks(save, lambda tensor: tensor):
            yield found, inputs
    finally:
        for hook in hooks:
            hook.remove()


def follow(layer: nn.Module, name: str, running: list[str], inputs: dict[str, int]) -> tuple[Any, Any]:
    """Keep `running` and `inputs` while a layer runs."""

    def enter(_: nn.Module, arguments: tuple[Any, ...]) -> None:
        running.append(name)
        inputs[name] = arguments[0].untyped_storage().nbytes()

    def leave(*_: Any) -> None:
        running.pop()

    return layer.register_forward_pre_hook(enter), layer.register_forward_hook(leave)
