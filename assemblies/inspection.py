"""What a spec costs before anything is allocated: parameters, FLOPs and cache bytes, by part."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pairform.assemblies.build import skeleton
from pairform.assemblies.flops import count_flops
from pairform.assemblies.load_spec import load_spec
from pairform.assemblies.model import Model
from pairform.assemblies.specs import LayerSpec, ModelSpec
from pairform.blocks.cache import Cache
from pairform.registry import InputError, Problem

CROSS = "cross_attention"


@dataclass
class Part:
    """A part of the model. `count` is how many layers have it; `parameters` and `flops` are of all of them together."""

    name: str
    count: int = 1
    parameters: int = 0
    flops: int = 0
    parts: list["Part"] = field(default_factory=list)

    def document(self, whole: int) -> dict[str, Any]:
        share = self.parameters / whole if whole else 0.0
        document = {"name": self.name, "count": self.count, "parameters": self.parameters, "share": share, "flops": self.flops}
        return document | ({"parts": [part.document(whole) for part in self.parts]} if self.parts else {})


@dataclass(frozen=True)
class Inspection:
    """Costs of one model. `parameters` counts tied tensors once; encoder and decoder are without their embeddings.

    flops:       of one forward pass over `source_length` and `target_length` tokens, two for each multiply-add, as
                 torch's counter counts matrix products.
    cache_bytes: keys and values after that pass, of what the decoder keeps of itself and of its source.
    """

    tree: Part
    parameters: dict[str, int]
    flops: dict[str, int]
    cache_bytes: dict[str, int]
    batch: int
    source_length: int
    target_length: int
    dtype: str

    def document(self) -> dict[str, Any]:
        """Plain data, as `pairform inspect --json` prints it."""
        lengths = {"batch": self.batch, "source_length": self.source_length, "target_length": self.target_length}
        return {
            "parameters": self.parameters,
            "flops": self.flops,
            "cache_bytes": self.cache_bytes,
            **lengths,
            "dtype": self.dtype,
            "tree": self.tree.document(self.parameters["total"]),
        }


def inspect(
    spec: str | Path | Mapping[str, Any] | ModelSpec,
    *,
    batch: int = 1,
    source_length: int = 512,
    target_length: int = 128,
    dtype: torch.dtype = torch.bfloat16,
) -> Inspection:
    """Parameters, FLOPs and cache bytes of a spec, measured on the meta device.

    A decoder-only model reads `target_length` tokens, an encoder-only one `source_length`.
    """
    for name, value in {"batch": batch, "source_length": source_length, "target_length": target_length}.items():
        if value < 1:
            raise InputError(Problem(name, str(value), "1 or more"))
    model = skeleton(load_spec(spec), dtype)
    tree = Part("model", parts=[stack_part(name, model) for name in model.spec.stacks])
    tree.parts.append(Part("head", parameters=own_parameters(model.head)))
    tree.parameters = own_parameters(model)
    numbers = count_parameters(model)
    counts = keep_one_of_each(model)
    flops, cache = run(model, batch, source_length, target_length)
    add_flops(tree, flops, counts)
    return Inspection(
        tree,
        numbers,
        {part.name: part.flops for part in tree.parts} | {"total": tree.flops},
        cache_bytes(cache, counts.get("decoder", [])),
        batch,
        source_length,
        target_length,
        str(dtype).removeprefix("torch."),
    )


def own_parameters(module: nn.Module) -> int:
    """Elements of a module's parameters; shared ones count once."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_parameters(model: Model) -> dict[str, int]:
    stacks = {name: model.get_submodule(name) for name in model.spec.stacks}
    embeddings = {name: own_parameters(stack.get_submodule("embedding")) for name, stack in stacks.items()}
    bodies = {name: own_parameters(stack) - embeddings[name] for name, stack in stacks.items()}
    return {
        "total": own_parameters(model),
        "embedding": sum(embeddings.values()),
        "encoder": bodies.get("encoder", 0),
        "decoder": bodies.get("decoder", 0),
        "cross_attention": cross_attention_parameters(model),
        "head": own_parameters(model.head),
    }


def cross_attention_parameters(model: Model) -> int:
    """Elements of all cross-attention blocks, without the norms around them."""
    return sum(
        own_parameters(branch.get_submodule("block"))
        for part, stack in model.spec.stacks.items()
        for layer, module in zip(stack.layers, model.get_submodule(part).get_submodule("layers").children(), strict=True)
        for name, branch in module.named_children()
        if layer.branches[name].name == CROSS
    )


def stack_part(name: str, model: Model) -> Part:
    """A stack's embedding, its branches summed over layers, and its final norm."""
    stack = model.get_submodule(name)
    layers = Part("layers", count=len(model.spec.stacks[name].layers), parameters=own_parameters(stack.get_submodule("layers")))
    by_branch: dict[str, Part] = {}
    for layer in stack.get_submodule("layers").children():
        for branch_name, branch in layer.named_children():
            part = by_branch.setdefault(branch_name, Part(branch_name, count=0))
            part.count += 1
            part.parameters += own_parameters(branch)
    layers.parts = list(by_branch.values())
    embedding = Part("embedding", parameters=own_parameters(stack.get_submodule("embedding")))
    norm = Part("norm", parameters=own_parameters(stack.get_submodule("norm")))
    return Part(name, parameters=own_parameters(stack), parts=[embedding, layers, norm])


def keep_one_of_each(model: Model) -> dict[str, list[int]]:
    """Leave each stack one layer of each kind, and say how many layers each of them stands for."""
    counts: dict[str, list[int]] = {}
    for name, spec in model.spec.stacks.items():
        stack = model.get_submodule(name)
        layers = list(stack.get_submodule("layers").children())
        kinds: Counter[LayerSpec] = Counter(spec.layers)
        stack.register_module("layers", nn.ModuleList(layers[spec.layers.index(kind)] for kind in kinds))
        counts[name] = list(kinds.values())
    return counts


def run(model: Model, batch: int, source_length: int, target_length: int) -> tuple[Mapping[str, int], Cache]:
    """FLOPs by module path, and the decoder's cache, of one forward pass."""
    source, target = (torch.zeros(batch, length, dtype=torch.long, device="meta") for length in (source_length, target_length))
    cache = Cache()
    inputs: dict[str, Tensor | Cache] = {"input_ids": target if model.encoder is None else source}
    if model.decoder is not None:
        inputs["cache"] = cache
        if model.encoder is not None:
            inputs["decoder_input_ids"] = target
    with torch.no_grad(), count_flops(dict(measured_modules(model))) as flops:
        model(**inputs)
    return flops, cache


def measured_modules(model: Model) -> Iterator[tuple[str, nn.Module]]:
    """The parts of the tree that compute, by path."""
    yield "head", model.head
    for name in model.spec.stacks:
        for part in ("embedding", "norm"):
            yield f"{name}.{part}", model.get_submodule(f"{name}.{part}")
        for index, layer in enumerate(model.get_submodule(f"{name}.layers").children()):
            for branch, module in layer.named_children():
                yield f"{name}.layers.{index}.{branch}", module


def add_flops(tree: Part, flops: Mapping[str, int], counts: Mapping[str, list[int]]) -> None:
    """Fill in the tree's FLOPs; each measured layer stands for as many as `counts` says."""
    for stack in tree.parts:
        if stack.name == "head":
            stack.flops = flops.get("head", 0)
        for part in stack.parts:
            if part.name != "layers":
                part.flops = flops.get(f"{stack.name}.{part.name}", 0)
            for branch in part.parts:
                path = f"{stack.name}.layers.{{}}.{branch.name}"
                branch.flops = sum(flops.get(path.format(kind), 0) * many for kind, many in enumerate(counts[stack.name]))
            part.flops += sum(branch.flops for branch in part.parts)
        stack.flops += sum(part.flops for part in stack.parts)
    tree.flops = sum(part.flops for part in tree.parts)


def cache_bytes(cache: Cache, counts: list[int]) -> dict[str, int]:
    own = sum(part.bytes * counts[layer] for (layer, _), part in cache.own.items())
    source = sum(part.bytes * counts[layer] for (layer, _), part in cache.source.items())
    return {"self": own, "source": source, "total": own + source}
