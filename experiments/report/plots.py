"""The report's plots: SVG by matplotlib, for embedding in the page, whose colours they take."""

import io
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from pairform.experiments.report.reading import Curve, Measured, Variant

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKERS = "os^DvPX*"
SIGNS = "●■▲◆▼✚✖★"
"""The markers as characters, for legends."""
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (7, 2, 1, 2)))
SERIES = len(MARKERS)
"""Number of variants with their own colour, marker and line; the others are grey."""
INK = "#000001"
"""Replaced with the colour of the page's text."""
GREY = "#000002"
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: it can be searched, and read aloud
    "font.family": "sans-serif",
    "font.size": 8.5,
    "axes.linewidth": 0.6,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.4,
}
RANGE = 10
"""An axis is logarithmic if its values differ by at least this factor."""


@dataclass(frozen=True)
class Figure:
    """An SVG element with its title and caption."""

    title: str
    svg: str
    caption: str


Styles = Mapping[str, int | None]
"""Variant -> the index of its colour, marker and line; None for grey."""


def styles(variants: list[Variant]) -> dict[str, int | None]:
    """If there are too many variants to distinguish, the first one and those of the best ranks get colours."""
    ranked = sorted(variants[1:], key=lambda variant: math.inf if variant.rank is None else variant.rank)
    chosen = {variant.name for variant in [*variants[:1], *ranked[: SERIES - 1]]}
    numbers = iter(range(SERIES))
    return {variant.name: next(numbers) if variant.name in chosen else None for variant in variants}


def colour(number: int | None) -> str:
    """Placeholder of a series' colour, which the page defines."""
    return GREY if number is None else f"#0001{number:02x}"


def draw_curves(variants: list[Variant], of: Styles, key: tuple[str, str], title: str) -> Figure | None:
    """A measure over training steps; None if fewer than two steps were logged."""
    curves = {variant.name: variant.curves[key] for variant in variants if key in variant.curves}
    if max((len(curve.steps) for curve in curves.values()), default=0) < 2:
        return None

    def draw(axes: "Axes") -> None:
        for name, curve in sorted(curves.items(), key=lambda item: of[item[0]] is not None):
            draw_curve(axes, name, curve, of[name])
        axes.set_xlabel("step")
        axes.set_ylabel(key[1].replace("_", " "))
        if wide([value for curve in curves.values() for value in curve.mean]):
            axes.set_yscale("log")

    partial = [variant.progress for variant in variants if variant.name in curves and not variant.complete]
    caption = f"Over finished seeds only: {', '.join(partial)}." if partial else ""
    return Figure(title, svg("-".join(key), title, draw), caption)


def draw_curve(axes: "Axes", name: str, curve: Curve, number: int | None) -> None:
    look: dict[str, Any] = {"color": colour(number), "gid": tip(name)}
    if number is not None:
        every = max(1, len(curve.steps) // 8)
        look |= {"linestyle": LINES[number], "marker": MARKERS[number], "markersize": 3.5, "markevery": every}
        axes.fill_between(curve.steps, curve.low, curve.high, color=colour(number), alpha=0.15, linewidth=0)
    axes.plot(curve.steps, curve.mean, **look)


def draw_front(variants: list[Variant], of: Styles, cost: str, label: str, unit: str) -> Figure | None:
    """Loss against a cost, with the Pareto front; None if the cost was not measured.

    A variant with failed or unfinished seeds is drawn but not compared: its mean may be that of its best seeds.
    """
    from matplotlib.ticker import EngFormatter

    points = {
        variant.name: (variant.measured[cost], variant.measured["loss"])
        for variant in variants
        if {cost, "loss"} <= variant.measured.keys()
    }
    if not points:
        return None
    partial = {variant.name: variant.progress for variant in variants if variant.name in points and not variant.complete}
    front = pareto_front({name: (x.mean, loss.mean) for name, (x, loss) in points.items() if name not in partial})

    def draw(axes: "Axes") -> None:
        corner = [(points[name][0].mean, points[name][1].mean) for name in front]
        if front:
            axes.step(*zip(*corner, strict=True), where="post", color=INK, linewidth=1, alpha=0.6, gid=tip("Pareto front"))
        for name, (price, loss) in sorted(points.items(), key=lambda item: of[item[0]] is not None):
            draw_point(axes, partial.get(name, name), price, loss, of[name], name in front, name not in partial)
        axes.set_xlabel(label)
        axes.set_ylabel("loss")
        axes.margins(0.1)
        if wide([price.mean for price, _ in points.values()]):
            axes.set_xscale("log")
        axes.xaxis.set_major_formatter(EngFormatter(unit, sep=" " if unit else ""))

    title = f"Loss and {label}"
    caption = f"On the front: {', '.join(front)}." if front else "No variant is complete yet."
    if partial:
        caption += (
            f" Hollow points are not compared, because some seeds failed or are unfinished: {', '.join(partial.values())}."
        )
    return Figure(title, svg(cost, title, draw), caption)


def draw_point(
    axes: "Axes", name: str, price: Measured, loss: Measured, number: int | None, on_front: bool, complete: bool
) -> None:
    """Draw a variant: ringed if on the front, hollow if seeds are missing, with the confidence interval of its loss."""
    if loss.half_width:
        axes.errorbar(price.mean, loss.mean, loss.half_width, color=colour(number), elinewidth=1, capsize=2, alpha=0.6)
    if on_front:
        axes.plot(price.mean, loss.mean, "o", markersize=13, markerfacecolor="none", color=INK, markeredgewidth=1)
    marker = "." if number is None else MARKERS[number]
    look: dict[str, Any] = {} if complete else {"markerfacecolor": "none"}
    axes.plot(price.mean, loss.mean, marker, markersize=7, color=colour(number), linewidth=0, gid=tip(name), **look)


def wide(values: list[float]) -> bool:
    return min(values) > 0 and max(values) >= RANGE * min(values)


def tip(text: str) -> str:
    """An SVG id that `svg` turns into a title, which a browser shows as a tooltip."""
    return f"tip-{text.encode().hex()}"


def svg(name: str, title: str, draw: Callable[["Axes"], None]) -> str:
    """An SVG element whose ids begin with `name`, so that one page can contain several."""
    import matplotlib
    from matplotlib.figure import Figure as Canvas

    file = io.StringIO()
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": name}):
        canvas = Canvas(figsize=(4.2, 2.9), layout="constrained")
        draw(canvas.subplots())
        canvas.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    # metadata is not needed, and a style sheet would be blocked by the page's policy
    text = re.sub(r"<metadata>.*?</metadata>|<style .*?</style>", "", text, flags=re.DOTALL)
    # the page sets the size; the label is for screen readers
    text = re.sub(
        r'<svg ([^>]*?)width="\S+" ([^>]*)height="\S+"', rf'<svg role="img" aria-label="{escape(title)}" \1\2', text, count=1
    )
    # before ids get their prefix: those made by `tip`
    text = re.sub(
        r'<g id="tip-([0-9a-f]+)">', lambda found: f"<g><title>{escape(bytes.fromhex(found[1]).decode())}</title>", text
    )
    text = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{name}-", text)
    text = text.replace(INK, "currentColor").replace(GREY, "var(--grey)")
    return re.sub(r"#0001([0-9a-f]{2})", lambda found: f"var(--series-{int(found[1], 16)})", text)


def pareto_front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """The Pareto-optimal points when both coordinates are minimised, sorted by the first.

    A point dominates another if neither coordinate is greater and one is less, so equal points are on the front together.
    """
    kept = [
        name
        for name, (x, y) in points.items()
        if not any(left <= x and low <= y and (left, low) != (x, y) for left, low in points.values())
    ]
    return sorted(kept, key=lambda name: points[name])
