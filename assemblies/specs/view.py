"""Specs and models in a notebook: what they consist of in a few lines, and the diagram."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pairform.assemblies.specs.ranges import ranges
from pairform.registry.html import Cell, Table, fragment

if TYPE_CHECKING:
    from pairform.assemblies.specs.layer import LayerSpec
    from pairform.assemblies.specs.model import ModelSpec
    from pairform.assemblies.specs.stack import StackSpec

MOST_KINDS = 40
"""Different layers of a stack that are drawn."""


def show_model(spec: "ModelSpec", title: str = "", rows: tuple[tuple[Cell, ...], ...] = ()) -> str:
    """The HTML of a model's spec. rows: further lines of its table."""
    return show(title or spec.assembly.replace("_", "-"), [*rows, *parts(spec)], spec, *spec.stacks.values())


def show_stack(spec: "StackSpec") -> str:
    """The HTML of a stack's spec."""
    return show(f"stack of {size(spec)}", [("embedding", spec.embedding.name), *kinds(spec)], spec, spec)


def show(title: str, rows: list[tuple[Cell, ...]], spec: "ModelSpec | StackSpec", *stacks: "StackSpec") -> str:
    # drawn when it is shown, as `Model.generate` imports the loop when it is called
    from pairform.assemblies.analysis.diagrams.drawing import draw, draw_alone
    from pairform.assemblies.analysis.diagrams.svg import svg
    from pairform.assemblies.specs.model import ModelSpec

    most = max(len(set(map(id, stack.layers))) for stack in stacks)
    if most > MOST_KINDS:
        return fragment(title, Table(rows), notes=[f"The diagram is not shown: a stack has {most:,} different layers."])
    return fragment(title, Table(rows), drawing=svg(draw(spec) if isinstance(spec, ModelSpec) else draw_alone(spec)))


def parts(spec: "ModelSpec") -> Iterator[tuple[Cell, ...]]:
    """The parts of a model in the order in which they run, and its tokens."""
    for name, stack in spec.stacks.items():
        yield name, f"{size(stack)}, vocabulary {spec.vocabulary_of(name):,}"
        if name == "encoder" and spec.bridge.name != "none":
            yield "bridge", spec.bridge.name
    tie = f", tied to the {spec.head_tie}'s embedding" if spec.head_tie else ""
    yield "head", spec.head.name + tie
    yield "tokens", ", ".join(f"{name} {token}" for name, token in spec.tokens.named())


def kinds(stack: "StackSpec") -> Iterator[tuple[Cell, ...]]:
    """Each kind of layer with the numbers of its layers and its blocks."""
    found: dict[int, tuple[LayerSpec, list[int]]] = {}
    for index, layer in enumerate(stack.layers):
        found.setdefault(id(layer), (layer, []))[1].append(index)
    for layer, places in found.values():
        blocks = ((name, layer.branches[name].name) for name in layer.present)
        yield f"layers {ranges(places)}", ", ".join(name if name == block else f"{name}: {block}" for name, block in blocks)


def size(stack: "StackSpec") -> str:
    return f"{stack.depth:,} layer{'' if stack.depth == 1 else 's'} of width {stack.width:,}"
