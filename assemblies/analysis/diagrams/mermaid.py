"""A diagram as a Mermaid flowchart."""

from collections.abc import Iterable
from itertools import count

from pairform.assemblies.analysis.diagrams.folding import Loop, Run
from pairform.assemblies.analysis.diagrams.parts import OUTPUT, Card, Column, Diagram, Layer, wrapped
from pairform.assemblies.specs.ranges import ranges
from pairform.registry import printable

STYLES = {
    "added": "stroke:#1a7f37,stroke-width:3px",
    "removed": "stroke:#cf222e,stroke-width:3px,stroke-dasharray:5 5",
    "changed": "stroke:#bf8700,stroke-width:3px",
}

SETTINGS = '%%{init: {"flowchart": {"wrappingWidth": 400}}}%%'
"""Lines are already wrapped."""


def mermaid(diagram: Diagram) -> str:
    return "\n".join(Writer(diagram).lines) + "\n"


class Writer:
    """Writes the lines and numbers the nodes. `last` is the node before the next one."""

    def __init__(self, diagram: Diagram) -> None:
        self.diagram = diagram
        self.numbers = count(1)
        self.lines = [SETTINGS, "flowchart TD"]
        self.edges: list[str] = []  # at the end: an edge written in a subgraph would draw its ends into it
        self.last = ""
        self.readers: list[tuple[str, str]] = []
        self.marked: dict[str, list[str]] = {}
        ends = [self.column(column) for column in diagram.columns]
        self.lines += self.edges
        if diagram.tied:
            self.lines.append("  encoder1 -. tied .- decoder1")
        for reader, source in self.readers:
            self.lines.append(f"  {ends[0]} ==> {reader}" if source == OUTPUT else f'  encoder == "{source}" ==> {reader}')
        if diagram.notes:
            self.node("  ", "model", wrapped(diagram.notes), "changed")
        for mark, nodes in self.marked.items():
            self.lines += [f"  classDef {mark} {STYLES[mark]}", f"  class {','.join(nodes)} {mark}"]

    def column(self, column: Column) -> str:
        """Returns the node of the last hidden states."""
        self.open("  ", column.name, f"{column.name}: {column.size}", column.notes, column.mark)
        self.last = ""
        for place, card in enumerate(column.above):
            self.follow("    ", card, name=f"{column.name}1" if place == 0 else None)
        for loop in column.loops:
            self.loop(loop)
        for card in column.below:
            self.follow("    ", card)
        self.lines.append("  end")
        return self.last

    def loop(self, loop: Loop[Layer]) -> None:
        framed = loop.times > 1 and len(loop.runs) > 1
        if framed:
            self.open("    ", self.fresh("loop"), f"{loop.times} times")
        for run in loop.runs:
            self.layer("      " if framed else "    ", run, run.times if framed else run.times * loop.times)
        if framed:
            self.lines.append("    end")

    def layer(self, indent: str, run: Run[Layer], times: int) -> None:
        heading = f"layer{'' if len(run.places) == 1 else 's'} {ranges(run.places)}" + (f", {times} times" if times > 1 else "")
        self.open(indent, self.fresh("layer"), heading, run.item.notes, run.item.mark)
        for group in run.item.groups:
            before = self.last
            made = []
            for card in group.cards:
                self.last = before
                made.append(self.follow(indent + "  ", card))
            if len(made) > 1 or group.join or group.norm:
                self.last = self.node(indent + "  ", group.join or "sum", [group.norm] if group.norm else [])
                self.edges += [f"  {name} --> {self.last}" for name in made]
        self.lines.append(f"{indent}end")

    def follow(self, indent: str, card: Card, name: str | None = None) -> str:
        """A node after the last one."""
        lines = [*norms(card), *wrapped(card.phrases), *wrapped(card.changes)]
        before, self.last = self.last, self.node(indent, card.title, lines, card.mark, name)
        if before:
            self.edges.append(f"  {before} --> {self.last}")
        if card.source:
            self.readers.append((self.last, card.source))
        return self.last

    def node(self, indent: str, title: str, lines: Iterable[str], mark: str = "", name: str | None = None) -> str:
        name = name or self.fresh("n")
        tag = f" ({mark})" if mark else ""
        self.lines.append(f'{indent}{name}["{"<br/>".join([f"<b>{plain(title)}</b>{tag}", *map(plain, lines)])}"]')
        if mark:
            self.marked.setdefault(mark, []).append(name)
        return name

    def open(self, indent: str, name: str, title: str, notes: tuple[str, ...] = (), mark: str = "") -> None:
        tag = f" ({mark})" if mark in ("added", "removed") else ""
        self.lines += [f'{indent}subgraph {name} ["{plain(", ".join([title, *notes]))}{tag}"]']
        if mark:
            self.marked.setdefault(mark, []).append(name)

    def fresh(self, kind: str) -> str:
        return f"{kind}_{next(self.numbers)}"


def norms(card: Card) -> list[str]:
    before, after = card.norms
    if before and before == after:
        return [f"{before} before and after"]
    return [f"{norm} {place}" for norm, place in ((before, "before"), (after, "after")) if norm]


def plain(text: str) -> str:
    """Escape what Mermaid would interpret."""
    return printable(text).replace("&", "#amp;").replace('"', "#quot;").replace("<", "#lt;").replace(">", "#gt;")
