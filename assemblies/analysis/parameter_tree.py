"""A model as a tree of parts with their parameters."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from pairform.assemblies.modeling.model import Model
from pairform.assemblies.specs.model import LayerSpec, StackSpec

CROSS = "cross_attention"
EMBEDDINGS = ("embedding", "position")
"""Parts of a stack that make its first hidden states."""


@dataclass
class Part:
    """A part of the model. A tensor that several parts share counts in the first of them.

    count: the number of layers that have it; `parameters` and `flops` are totals over them.
    """

    name: str
    count: int = 1
    parameters: int = 0
    flops: int = 0
    parts: list["Part"] = field(default_factory=list)

    def document(self, whole: int) -> dict[str, Any]:
        share = self.parameters / whole if whole else 0.0
        document = {"name": self.name, "count": self.count, "parameters": self.parameters, "share": share, "flops": self.flops}
        return document | ({"parts": [part.document(whole) for part in self.parts]} if self.parts else {})

    def size(self, *names: str) -> int:
        """Parameters of the parts inside this one that have one of these names."""
        return sum(part.parameters for part in self.parts if part.name in names)


def whole(name: str, parts: list[Part]) -> Part:
    return Part(name, parameters=sum(part.parameters for part in parts), parts=parts)


def stacks_of(model: Model) -> Iterator[tuple[str, StackSpec]]:
    """Every stack by its path in the model, vision towers included."""
    for name, stack in model.spec.stacks.items():
        yield name, stack
        if stack.vision is not None:
            yield f"{name}.vision.tower", stack.vision.tower


Counts = Mapping[str, Sequence[int]]
"""By a stack's path, the number of layers that each of its layers stands for."""


class Tree:
    """The tree of a model with one layer of each kind. Each tensor counts in the first part that has it."""

    def __init__(self, model: Model, counts: Counts) -> None:
        self.counted: set[int] = set()
        self.counts = counts
        parts = [self.stack(name, model.get_submodule(name)) for name in model.spec.stacks]
        if model.spec.bridge.name != "none":
            parts.insert(1, Part("bridge", parameters=self.new_parameters(model.bridge)))
        self.root = whole("model", [*parts, Part("head", parameters=self.new_parameters(model.head))])

    def new_parameters(self, module: nn.Module) -> int:
        """Elements of the module's parameters that no earlier part has."""
        new = {id(parameter): parameter.numel() for parameter in module.parameters() if id(parameter) not in self.counted}
        self.counted.update(new)
        return sum(new.values())

    def stack(self, path: str, stack: nn.Module) -> Part:
        """Every child of the stack: those before the layers, the branches summed over layers, and the final norm."""
        children = dict(stack.named_children())
        after = {name: children.pop(name) for name in ("layers", "norm")}
        return whole(path.rpartition(".")[2], [self.part(path, name, child) for name, child in (children | after).items()])

    def part(self, path: str, name: str, child: nn.Module) -> Part:
        """One child of the stack at `path`."""
        if name == "layers":
            return self.layers(child, self.counts[path])
        if name == "vision":
            tower = self.stack(f"{path}.vision.tower", child.get_submodule("tower"))
            return whole("vision", [tower, Part("projector", parameters=self.new_parameters(child.get_submodule("projector")))])
        return Part(name, parameters=self.new_parameters(child))

    def layers(self, layers: nn.Module, counts: Sequence[int]) -> Part:
        by_branch: dict[str, Part] = {}
        for layer, count in zip(layers.children(), counts, strict=True):
            for name, branch in layer.named_children():
                part = by_branch.setdefault(name, Part(name, count=0))
                part.count += count
                part.parameters += count * self.new_parameters(branch)
        part = whole("layers", list(by_branch.values()))
        part.count = sum(counts)
        return part


def layers_of(model: Model, counts: Counts) -> Iterator[tuple[LayerSpec, nn.Module, int]]:
    """Every kind of layer with its spec and the number of such layers."""
    for path, stack in stacks_of(model):
        yield from zip(stack.layers, model.get_submodule(f"{path}.layers").children(), counts[path], strict=True)


def count_parameters(tree: Part, model: Model, counts: Counts) -> dict[str, int]:
    """Parameters by purpose. `embedding` is of tokens and positions; `encoder` and `decoder` are the rest of a stack without
    vision. `active`, given if it differs from the total, is what one token uses."""
    stacks = {part.name: part for part in tree.parts if part.name in model.spec.stacks}
    bodies = {name: stack.parameters - stack.size(*EMBEDDINGS, "vision") for name, stack in stacks.items()}
    idle = sum(
        count * getattr(module, "idle_parameters", 0)
        for _, layer, count in layers_of(model, counts)
        for module in layer.modules()
    )
    return {
        "total": tree.parameters,
        **({"active": tree.parameters - idle} if idle else {}),
        "embedding": sum(stack.size(*EMBEDDINGS) for stack in stacks.values()),
        "encoder": bodies.get("encoder", 0),
        "decoder": bodies.get("decoder", 0),
        "cross_attention": cross_attention_parameters(model, counts),
        "vision": sum(stack.size("vision") for stack in stacks.values()),
        "bridge": tree.size("bridge"),
        "head": tree.size("head"),
    }


def cross_attention_parameters(model: Model, counts: Counts) -> int:
    """Parameters of all cross-attention blocks, without the norms around them."""
    return sum(
        count * parameter.numel()
        for layer, module, count in layers_of(model, counts)
        for name, branch in module.named_children()
        if layer.branches[name].name == CROSS
        for parameter in branch.get_submodule("block").parameters()
    )
