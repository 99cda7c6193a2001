"""A model as a tree of parts with their parameters and FLOPs."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from pairform.assemblies.modeling.model import Model
from pairform.assemblies.specs.model import StackSpec

CROSS = "cross_attention"
EMBEDDINGS = ("embedding", "position", "token_types", "embedding_norm")
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
        """Plain data. whole: the parameters of the model, of which the part's share is computed."""
        share = self.parameters / whole if whole else 0.0
        document = {"name": self.name, "count": self.count, "parameters": self.parameters, "share": share, "flops": self.flops}
        return document | ({"parts": [part.document(whole) for part in self.parts]} if self.parts else {})

    def rows(self, whole: int, indent: str = "") -> Iterator[tuple[str, int, float, float]]:
        """The part and those inside it: indented name, parameters, their share of `whole` in percent, GFLOPs."""
        name = f"{indent}{self.name}" + (f" x {self.count}" if self.count > 1 else "")
        yield name, self.parameters, 100 * self.parameters / whole, self.flops / 1e9
        for part in self.parts:
            yield from part.rows(whole, indent + "  ")

    def size(self, *names: str) -> int:
        """Parameters of the parts inside this one that have one of these names."""
        return sum(part.parameters for part in self.parts if part.name in names)


Counts = Mapping[str, Sequence[int]]
"""By a stack's path, the number of layers that each of its layers stands for."""


class Tree:
    """The tree of a model with one layer of each kind, whose `root` is made when this is constructed.

    Args:
        model: The model.
        counts: How many layers each of its layers stands for.
        flops: Of each module by its path, those of the modules inside it included.
    """

    def __init__(self, model: Model, counts: Counts, flops: Counter[str]) -> None:
        self.spec = model.spec
        self.counts = counts
        self.flops = flops
        self.counted: set[int] = set()
        self.measured = self.idle = self.cross_attention = 0
        parts = [self.stack(name, stack, model.get_submodule(name)) for name, stack in model.spec.stacks.items()]
        if model.spec.bridge.name != "none":
            parts.insert(1, self.leaf("bridge", model.bridge))
        self.root = whole("model", [*parts, self.leaf("head", model.head)])
        # what ran outside of every part
        self.root.flops += flops[""] - self.measured

    def leaf(self, path: str, module: nn.Module, count: int = 1) -> Part:
        """A part without parts inside. Each tensor counts in the first part that has it."""
        new = {id(parameter): parameter.numel() for parameter in module.parameters() if id(parameter) not in self.counted}
        self.counted.update(new)
        flops = self.flops[path]
        self.measured += flops
        return Part(path.rpartition(".")[2], count, count * sum(new.values()), count * flops)

    def stack(self, path: str, spec: StackSpec, stack: nn.Module) -> Part:
        """Every child of the stack: those before the layers, the branches summed over layers, and the final norm."""
        children = dict(stack.named_children())
        layers, norm = children.pop("layers"), children.pop("norm")
        parts = [
            self.vision(path, spec, child) if name == "vision" else self.leaf(f"{path}.{name}", child)
            for name, child in children.items()
        ]
        return whole(path.rpartition(".")[2], [*parts, self.layers(path, spec, layers), self.leaf(f"{path}.norm", norm)])

    def vision(self, path: str, spec: StackSpec, vision: nn.Module) -> Part:
        assert spec.vision is not None, "its module was built from it"
        tower = self.stack(f"{path}.vision.tower", spec.vision.tower, vision.get_submodule("tower"))
        return whole("vision", [tower, self.leaf(f"{path}.vision.projector", vision.get_submodule("projector"))])

    def layers(self, path: str, spec: StackSpec, layers: nn.Module) -> Part:
        counts = self.counts[path]
        branches: dict[str, Part] = {}
        for index, (kind, layer, count) in enumerate(zip(spec.layers, layers.children(), counts, strict=True)):
            for name, branch in layer.named_children():
                found = self.leaf(f"{path}.layers.{index}.{name}", branch, count)
                part = branches.setdefault(name, Part(name, count=0))
                part.count += found.count
                part.parameters += found.parameters
                part.flops += found.flops
                if name in kind.branches and kind.branches[name].name == CROSS:
                    block = branch.get_submodule("block")
                    self.cross_attention += count * sum(parameter.numel() for parameter in block.parameters())
            if kind.output_scale == "learned":  # a stored one is a constant, as in transformers
                scale = branches.setdefault("output_scale", Part("output_scale", count=0))
                scale.count, scale.parameters = scale.count + count, scale.parameters + count
            self.idle += count * sum(getattr(module, "idle_parameters", 0) for module in layer.modules())
        part = whole("layers", list(branches.values()))
        part.count = sum(counts)
        return part

    def parameters(self) -> dict[str, int]:
        """Parameters by purpose.

        `embedding` is of tokens and positions; `encoder` and `decoder` are the rest of a stack without vision. `active`, given
        if it differs from the total, is what one token uses. `cross_attention` is without the norms around it.
        """
        root = self.root
        stacks = {part.name: part for part in root.parts if part.name in self.spec.stacks}
        bodies = {name: stack.parameters - stack.size(*EMBEDDINGS, "vision") for name, stack in stacks.items()}
        return {
            "total": root.parameters,
            **({"active": root.parameters - self.idle} if self.idle else {}),
            "embedding": sum(stack.size(*EMBEDDINGS) for stack in stacks.values()),
            "encoder": bodies.get("encoder", 0),
            "decoder": bodies.get("decoder", 0),
            "cross_attention": self.cross_attention,
            "vision": sum(stack.size("vision") for stack in stacks.values()),
            "bridge": root.size("bridge"),
            "head": root.size("head"),
        }


def whole(name: str, parts: list[Part]) -> Part:
    """A part that consists of `parts`."""
    return Part(name, 1, sum(part.parameters for part in parts), sum(part.flops for part in parts), parts)
