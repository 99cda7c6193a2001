"""A diagram as SVG, from top to bottom, with the encoder to the left of the decoder.

The residual stream runs down the outer side of each stack; a branch leaves it and is added to it. The encoder's output runs
between the stacks.
"""

from pairform.assemblies.analysis.diagrams.canvas import Canvas
from pairform.assemblies.analysis.diagrams.parts import OUTPUT, Column, Diagram, wrapped
from pairform.assemblies.analysis.diagrams.svg_stack import GAP, LINE, Span, Stack

MARGIN, GUTTER = 16, 100


def svg(diagram: Diagram) -> str:
    canvas = Canvas()
    y = MARGIN + 16.0
    canvas.text(MARGIN, y, diagram.title, "heading")
    for line in wrapped(diagram.notes):
        y += LINE
        canvas.text(MARGIN, y, line, "changed")
    top = y + 3 * GAP
    tokens = top + GAP + LINE * (1 + max(len(wrapped(column.notes)) for column in diagram.columns))
    stacks: list[Stack] = []
    for column in diagram.columns:
        x = stacks[-1].span.right + GUTTER if stacks else MARGIN
        stacks.append(Stack(canvas, Span(x, parallel(column), mirrored=bool(stacks)), column, top, tokens))
    if len(stacks) == 2:
        join(canvas, *stacks, tied=diagram.tied)
    return canvas.document(stacks[-1].span.right + MARGIN, max(stack.y for stack in stacks) + MARGIN, diagram.title)


def parallel(column: Column) -> int:
    """The most branches in one parallel group."""
    return max(len(group.cards) for loop in column.loops for run in loop.runs for group in run.item.groups)


def join(canvas: Canvas, encoder: Stack, decoder: Stack, *, tied: bool) -> None:
    """Draw the encoder's output to all of its readers, and a line between tied embeddings."""
    middle = (encoder.span.right + decoder.span.x) / 2
    for x, y, source in decoder.readers:
        start = middle if source == OUTPUT else decoder.span.x - GAP
        canvas.path(f"M{start:g} {y:g}H{x - 6:g}", "source")
        canvas.head(x, y, kind="source-head")
        if source != OUTPUT:
            canvas.text(start - 6, y + 4, source, "source-words", anchor="end")
    heights = [encoder.end, *(y for _, y, source in decoder.readers if source == OUTPUT)]
    if len(heights) > 1:
        canvas.path(
            f"M{encoder.span.inner_right:g} {encoder.end:g}H{middle:g}M{middle:g} {min(heights):g}V{max(heights):g}", "source"
        )
        canvas.text(middle - 8, sum(heights[:2]) / 2, "encoder's output", "source-words", anchor="middle", turned=True)
    if tied:
        y = encoder.embedding
        canvas.path(f"M{encoder.span.inner_right:g} {y:g}H{decoder.span.inner:g}", "tied")
        canvas.text(middle, y - 6, "tied", "soft", anchor="middle")
