"""A canvas for pictures of the documentation: matrices, plots, boxes with arrows, in the colours of diagrams of specs."""

from collections.abc import Callable, Sequence

from pairform.assemblies.analysis.diagrams.canvas import Canvas

STYLE = """<style>
.diagram { --one: #0f62c6; --two: #b4500a; --three: #1a7f37; --four: #8250df; --off: #e4e8ed; }
@media (prefers-color-scheme: dark) { .diagram { --one: #78b0ff; --two: #f0a35e; --three: #4ac26b; --four: #c297ff;
  --off: #232a33; } }
.diagram .one, .diagram .two, .diagram .three, .diagram .four { stroke: none; }
.diagram .one { fill: var(--one); } .diagram .two { fill: var(--two); } .diagram .three { fill: var(--three); }
.diagram .four { fill: var(--four); } .diagram .off { fill: var(--off); }
.diagram .curve { fill: none; stroke-width: 2; stroke-linejoin: round; }
.diagram .curve.one { stroke: var(--one); } .diagram .curve.two { stroke: var(--two); }
.diagram .curve.three { stroke: var(--three); } .diagram .curve.four { stroke: var(--four); }
</style>"""
COLOURS = ("one", "two", "three", "four")
Points = Sequence[tuple[float, float]]


class Sheet(Canvas):
    """A canvas with the parts that the pictures share. Positions and sizes are in pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.frames.append(STYLE)

    def matrix(self, x: float, y: float, cells: Sequence[Sequence[str]], title: str, size: float = 16) -> None:
        """Squares of the given classes under a title; the top left corner of the first is at (x, y)."""
        self.text(x, y - 10, title, "title")
        for kind in sorted({kind for row in cells for kind in row}):
            places = [(i, j) for i, row in enumerate(cells) for j, cell in enumerate(row) if cell == kind]
            side = size - 2
            squares = "".join(f"M{x + j * size:g} {y + i * size:g}h{side:g}v{side:g}h-{side:g}z" for i, j in places)
            self.frames.append(f'<path d="{squares}" class="{kind}"/>')

    def key(self, x: float, y: float, kind: str, words: str) -> None:
        """A square of a class and what it means."""
        self.frames.append(f'<path d="M{x:g} {y - 11:g}h12v12h-12z" class="{kind}"/>')
        self.text(x + 18, y, words)

    def dot(self, x: float, y: float, radius: float, kind: str) -> None:
        self.cards.append(f'<circle cx="{round(x, 1):g}" cy="{round(y, 1):g}" r="{radius:g}" class="{kind}"/>')

    def box(self, x: float, y: float, width: float, words: str, kind: str = "card", height: float = 32) -> None:
        """A card with centred words; (x, y) is the middle of its left side."""
        self.card(x, y - height / 2, width, height, kind)
        lines = words.split("\n")
        for number, line in enumerate(lines):
            self.text(x + width / 2, y + 4 + 15 * (number - (len(lines) - 1) / 2), line, anchor="middle")

    def arrow(self, *points: tuple[float, float], kind: str = "") -> None:
        """A line through the points, with a head at the last one."""
        steps = "L".join(f"{x:g} {y:g}" for x, y in points)
        self.path(f"M{steps}", kind or "stream")
        (ax, ay), (bx, by) = points[-2:]
        turn = (0 if bx > ax else 180) if ay == by else 90 if by > ay else 270
        self.head(bx, by, turn, "source-head" if kind == "source" else "head")


class Plot:
    """Axes on a sheet, with the functions that place values."""

    def __init__(
        self,
        sheet: Sheet,
        left: float,
        top: float,
        across: tuple[float, float],
        up: tuple[float, float],
        size: tuple[float, float],
    ) -> None:
        self.sheet, self.left, self.top, self.across, self.up, self.size = sheet, left, top, across, up, size

    def x(self, value: float) -> float:
        return round(self.left + (value - self.across[0]) / (self.across[1] - self.across[0]) * self.size[0], 1)

    def y(self, value: float) -> float:
        return round(self.top + (self.up[1] - value) / (self.up[1] - self.up[0]) * self.size[1], 1)

    def axes(
        self,
        across: Sequence[float],
        up: Sequence[float],
        titles: tuple[str, str],
        form: Callable[[float], str] = "{:g}".format,
    ) -> None:
        """Grid lines at the given values, their numbers, and the names of the axes."""
        left, right, bottom = self.left, self.left + self.size[0], self.top + self.size[1]
        for value in up:
            self.sheet.path(f"M{left:g} {self.y(value):g}H{right:g}", "frame")
            self.sheet.text(left - 8, self.y(value) + 4, form(value), "soft", anchor="end")
        self.sheet.path(f"M{left:g} {bottom:g}H{right:g}")
        for value in across:
            self.sheet.text(self.x(value), bottom + 18, f"{value:g}", "soft", anchor="middle")
        self.sheet.text((left + right) / 2, bottom + 38, titles[0], anchor="middle")
        self.sheet.text(left - 40, self.top - 14, titles[1])

    def curve(self, points: Points, kind: str, words: str = "", shift: float = 4) -> None:
        """A line through the points, with a label right of the last one."""
        steps = "L".join(f"{self.x(x):g} {self.y(y):g}" for x, y in points)
        self.sheet.path(f"M{steps}", f"curve {kind}")
        if words:
            x, y = points[-1]
            self.sheet.text(self.x(x) + 8, self.y(y) + shift, words)
