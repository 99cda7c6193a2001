"""One stack of a diagram in SVG."""

from dataclasses import dataclass

from pairform.assemblies.analysis.diagrams.canvas import Canvas
from pairform.assemblies.analysis.diagrams.folding import Loop, Run
from pairform.assemblies.analysis.diagrams.parts import Card, Column, Layer, ParallelGroup, wrapped
from pairform.assemblies.specs.ranges import ranges

CARD, GAP, LINE, STRIP = 312, 12, 16, 20
"""The width of a card, the gap between cards, the heights of a line and of a norm's strip."""
RAIL, PAD = 30, 10
"""The width of the residual stream beside the cards, and the padding of a frame."""


@dataclass(frozen=True)
class Span:
    """The horizontal layout of a stack: two frames around `parallel` cards and the residual stream, which is on the right in a
    mirrored one."""

    x: float
    parallel: int
    mirrored: bool

    @property
    def cards(self) -> float:
        """The width of the cards side by side."""
        return self.parallel * (CARD + GAP) - GAP

    @property
    def inner(self) -> float:
        return self.x + 2 * PAD

    @property
    def inner_right(self) -> float:
        return self.inner + RAIL + self.cards

    @property
    def right(self) -> float:
        return self.inner_right + 2 * PAD

    @property
    def stream(self) -> float:
        return self.inner_right - RAIL / 2 + 4 if self.mirrored else self.inner + RAIL / 2 - 4

    def card(self, place: int) -> float:
        """The left edge of card number `place`."""
        return self.inner + (0 if self.mirrored else RAIL) + place * (CARD + GAP)


class Stack:
    """Draws a column when it is constructed. `y` is the top of the next part, and finally the lower edge.

    top, tokens: the y of its name and of its input.
    embedding: the y of the embedding's middle.
    end:       the y of the output that cross-attention reads.
    readers:   the ends of arrows from the encoder, and what is read there.
    """

    def __init__(self, canvas: Canvas, span: Span, column: Column, top: float, tokens: float) -> None:
        self.canvas = canvas
        self.span = span
        self.y = top
        self.readers: list[tuple[float, float, str]] = []
        tag = f" ({column.mark})" if column.mark else ""
        canvas.text(span.inner, self.y, column.name + tag, f"heading {column.mark}".strip())
        canvas.text(span.inner_right, self.y, column.size, "soft", anchor="end")
        self.notes(column.notes, span.inner)
        self.y = tokens
        canvas.text(span.stream, self.y - 4, "tokens", "soft", anchor="end" if span.mirrored else "start")
        begin = self.y
        self.y += GAP
        self.embedding = self.y + 14
        for card in column.above:
            self.whole(card)
        for loop in column.loops:
            self.loop(loop)
        self.end = self.y
        for card in column.below:
            if not card.title.startswith("head"):
                self.end = self.y + 14
            self.whole(card)
        canvas.path(f"M{span.stream:g} {begin:g}V{self.y - GAP - 8:g}")

    @property
    def left(self) -> float:
        """The left edge of the cards of layers."""
        return self.span.card(0)

    def notes(self, notes: tuple[str, ...], x: float) -> None:
        for line in wrapped(notes):
            self.y += LINE
            self.canvas.text(x, self.y, line, "changed")

    def whole(self, card: Card) -> None:
        """A block in the residual stream itself."""
        height = self.card(self.span.inner, self.y, self.span.cards + RAIL, card)
        self.canvas.head(self.span.stream, self.y, 90)
        self.y += height + GAP + 4

    def loop(self, loop: Loop[Layer]) -> None:
        framed = loop.times > 1 and len(loop.runs) > 1
        top = self.y
        if framed:
            self.canvas.text(self.left, top + LINE, f"{loop.times} times", "title")
            self.y += LINE + PAD
        for run in loop.runs:
            self.layer(run, run.times if framed else run.times * loop.times)
        if framed:
            self.canvas.frame(self.span.x, top, self.span.right - self.span.x, self.y - top, "frame")
            self.y += GAP

    def layer(self, run: Run[Layer], times: int) -> None:
        span, top = self.span, self.y
        heading = f"layer{'' if len(run.places) == 1 else 's'} {ranges(run.places)}"
        tag = f" ({run.item.mark})" if run.item.mark in ("added", "removed") else ""
        left = self.left
        self.y += LINE + 2
        self.canvas.text(left, self.y, heading + tag, f"soft {run.item.mark}".strip())
        if times > 1:
            self.canvas.text(left + span.cards, self.y, f"{times} times", "title", anchor="end")
        self.notes(run.item.notes, left)
        self.y += GAP
        for group in run.item.groups:
            self.group(group)
        self.canvas.frame(span.inner - PAD, top, span.right - span.x - 2 * PAD, self.y - top, f"layer {run.item.mark}")
        self.y += GAP

    def group(self, group: ParallelGroup) -> None:
        """Parallel branches side by side, then the sum."""
        span = self.span
        way, turned = (-1, 180) if span.mirrored else (1, 0)
        several = len(group.cards) > 1
        top = self.y + (GAP if several else 0)
        heights = [self.card(span.card(place), top, CARD, card) for place, card in enumerate(group.cards)]
        bottom = top + max(heights)
        if several:  # in at the top and out at the bottom of each
            leave, join = top - GAP, bottom + GAP
            middles = [span.card(place) + CARD / 2 for place in range(len(group.cards))]
            far = min(middles) if span.mirrored else max(middles)
            self.canvas.path(f"M{span.stream:g} {leave:g}H{far:g}M{far:g} {join:g}H{span.stream + 8 * way:g}")
            for middle, height in zip(middles, heights, strict=True):
                self.canvas.path(f"M{middle:g} {leave:g}V{top:g}M{middle:g} {top + height:g}V{join:g}")
                self.canvas.head(middle, top, 90)
        else:
            leave, join = top + 10, bottom - 10
            near = span.card(0) + (CARD if span.mirrored else 0)
            self.canvas.path(f"M{span.stream:g} {leave:g}H{near - 6 * way:g}M{near:g} {join:g}H{span.stream + 8 * way:g}")
            self.canvas.head(near, leave, turned)
        self.canvas.sum(span.stream, join)
        self.y = max(bottom, join) + GAP
        if group.join:
            self.canvas.text(span.card(0), self.y + 2, f"joined by {group.join}", "soft")
            self.y += LINE
        if group.norm:
            self.strip(span.inner, self.y, span.cards + RAIL, group.norm)
            self.y += STRIP + GAP

    def card(self, x: float, y: float, width: float, card: Card) -> float:
        """Returns its height."""
        above, below = card.norms
        lines = [(line, "soft") for line in wrapped(card.phrases)] + [(line, "changed") for line in wrapped(card.changes)]
        height = 28 + LINE * len(lines) + STRIP * sum(norm is not None for norm in card.norms)
        self.canvas.card(x, y, width, height, "card")
        if above:
            self.strip(x, y, width, above)
        if below:
            self.strip(x, y + height - STRIP, width, below)
        base = y + (STRIP if above else 0) + 18
        self.canvas.text(x + 12, base, card.title, "title")
        if card.mark:
            self.canvas.text(x + width - 12, base, card.mark, card.mark, anchor="end")
            self.canvas.card(x, y, width, height, f"outline {card.mark}")
        for number, (line, kind) in enumerate(lines, start=1):
            self.canvas.text(x + 12, base + LINE * number, line, kind)
        if card.source:
            self.readers.append((x, base - 4, card.source))
        return height

    def strip(self, x: float, y: float, width: float, norm: str) -> None:
        self.canvas.card(x, y, width, STRIP, "norm")
        self.canvas.text(x + width / 2, y + 14, norm, "soft", anchor="middle")
