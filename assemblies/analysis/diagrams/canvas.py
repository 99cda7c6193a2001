"""SVG elements of a diagram, in the page's light or dark colours."""

from html import escape

from pairform.registry import printable

STYLE = """
.diagram { color-scheme: light dark; --ink: #1b1f24; --soft: #57606a; --line: #8c959f; --page: #ffffff; --card: #eef2f7;
  --layer: #f8fafc; --norm: #dde6f0; --source: #0f62c6; --added: #1a7f37; --removed: #cf222e; --changed: #9a6700; }
@media (prefers-color-scheme: dark) { .diagram { --ink: #e6edf3; --soft: #a5b0bb; --line: #6e7781; --page: #12161b;
  --card: #252d37; --layer: #1a2028; --norm: #35414f; --source: #78b0ff; --added: #4ac26b; --removed: #ff8182;
  --changed: #d4a72c; } }
.diagram text { font: 12px system-ui, sans-serif; fill: var(--ink); }
.diagram .title { font-weight: 600; }
.diagram .heading { font-size: 16px; font-weight: 600; }
.diagram .soft { fill: var(--soft); }
.diagram .card { fill: var(--card); stroke: var(--line); }
.diagram .layer { fill: var(--layer); stroke: var(--line); }
.diagram .norm { fill: var(--norm); }
.diagram .frame { fill: none; stroke: var(--line); stroke-dasharray: 4 4; }
.diagram .stream { fill: none; stroke: var(--line); stroke-width: 1.5; }
.diagram .sum { fill: var(--page); stroke: var(--line); stroke-width: 1.5; }
.diagram .source { fill: none; stroke: var(--source); stroke-width: 2; }
.diagram .tied { fill: none; stroke: var(--soft); stroke-width: 1.5; stroke-dasharray: 2 3; }
.diagram .page { fill: var(--page); }
.diagram text.source-words { fill: var(--source); }
.diagram .outline { fill: none; }
.diagram .head { fill: var(--line); } .diagram .source-head { fill: var(--source); }
.diagram .added { stroke: var(--added); stroke-width: 2.5; } .diagram text.added { fill: var(--added); stroke: none; }
.diagram .removed { stroke: var(--removed); stroke-width: 2.5; stroke-dasharray: 6 4; }
.diagram text.removed { fill: var(--removed); stroke: none; }
.diagram .changed { stroke: var(--changed); stroke-width: 2.5; } .diagram text.changed { fill: var(--changed); stroke: none; }
"""


class Canvas:
    """Elements in three layers, back to front: frames, lines, cards with their text."""

    def __init__(self) -> None:
        self.frames: list[str] = []
        self.lines: list[str] = []
        self.cards: list[str] = []

    def frame(self, x: float, y: float, width: float, height: float, kind: str) -> None:
        self.frames.append(rectangle(x, y, width, height, kind, 8))

    def card(self, x: float, y: float, width: float, height: float, kind: str) -> None:
        self.cards.append(rectangle(x, y, width, height, kind, 6))

    def text(self, x: float, y: float, words: str, kind: str = "", anchor: str = "start", turned: bool = False) -> None:
        look = f' class="{kind}"' if kind else ""
        look += f' text-anchor="{anchor}"' if anchor != "start" else ""
        look += f' transform="rotate(-90 {x:g} {y:g})"' if turned else ""
        self.cards.append(f'<text x="{x:g}" y="{y:g}"{look}>{plain(words)}</text>')

    def path(self, steps: str, kind: str = "stream") -> None:
        self.lines.append(f'<path d="{steps}" class="{kind}"/>')

    def head(self, x: float, y: float, turn: int = 0, kind: str = "head") -> None:
        """An arrowhead with its tip at (x, y), pointing right, or rotated by `turn` degrees."""
        self.cards.append(f'<path d="M{x:g} {y:g}l-7 -4v8z" transform="rotate({turn} {x:g} {y:g})" class="{kind}"/>')

    def sum(self, x: float, y: float) -> None:
        """The sum of a branch and the residual stream."""
        self.cards.append(f'<path d="M{x - 8:g} {y:g}a8 8 0 1 1 16 0a8 8 0 1 1 -16 0zm3 0h10m-5 -5v10" class="sum"/>')

    def document(self, width: float, height: float, title: str) -> str:
        """The whole as one SVG file."""
        size = f'viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}"'
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="diagram" {size} role="img">',
            f"<title>{plain(title)}</title>",
            f"<style>{STYLE}</style>",
            f'<rect width="{width:g}" height="{height:g}" class="page"/>',
            *self.frames,
            *self.lines,
            *self.cards,
            "</svg>",
        ]
        return "\n".join(parts) + "\n"


def plain(words: str) -> str:
    """Escape markup, and control characters that XML does not allow."""
    return escape(printable(words), quote=False)


def rectangle(x: float, y: float, width: float, height: float, kind: str, radius: float) -> str:
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius:g}" class="{kind.strip()}"/>'
