"""A summary of a plan: tensors of equal roles in all layers, grouped by how they are made."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import prod

from pairform.assemblies.initialisation.operations import Shape
from pairform.assemblies.initialisation.plan import Plan


@dataclass
class Group:
    """Tensors of one part that are made alike.

    stack:     `encoder`, `decoder`, `bridge` or `head`; of dropped tensors, whose source they are in.
    part:      the place in the stack, with `*` for a layer's number: `layers.*.self_attention`.
    operation: what makes them, or why they are dropped.
    origin:    the place in the source, where it has another name there.
    """

    stack: str
    part: str
    operation: str
    origin: str
    tensors: list[str] = field(default_factory=list)
    parameters: int = 0

    def add(self, tensor: str, shape: Shape) -> None:
        self.tensors.append(tensor)
        self.parameters += prod(shape)


def groups(plan: Plan) -> list[Group]:
    """The tensors of the new model, in the order of the plan."""
    found: dict[tuple[str, ...], Group] = {}
    for row in plan.targets:
        stack, part = place(row.target)
        origin = place(row.source.tensor)[1] if row.source else ""
        key = (stack, part, row.operation.summary, "" if origin == part else origin)
        found.setdefault(key, Group(*key)).add(row.target, row.shape)
    return list(found.values())


def dropped(plan: Plan) -> list[Group]:
    """The tensors of the sources that are not used."""
    found: dict[tuple[str, ...], Group] = {}
    for row in plan.origins:
        if row.dropped is not None:
            key = (row.source.role, place(row.source.tensor)[1], row.dropped, "")
            found.setdefault(key, Group(*key)).add(row.source.tensor, row.shape)
    return list(found.values())


def place(tensor: str) -> tuple[str, str]:
    """`decoder.layers.3.self_attention.block.q_proj.weight` is in `decoder`, at `layers.*.self_attention`."""
    stack, *words = tensor.split(".")
    numbers = [index for index, word in enumerate(words) if word.isdigit()]
    end = numbers[-1] + 2 if numbers else max(len(words) - 1, 1)
    return stack, ".".join("*" if word.isdigit() else word for word in words[:end])


def size_in_bytes(plan: Plan) -> int:
    """The number of bytes of the planned weights."""
    sizes = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
    return sum(row.parameters * sizes[row.dtype] for row in plan.targets)


def sources_of(plan: Plan, stack: str) -> Iterable[str]:
    """The folders that a stack's tensors come from."""
    roles = dict.fromkeys(row.source.role for row in plan.targets if row.source and place(row.target)[0] == stack)
    return [plan.sources[role].path or "the model" for role in roles]
