"""Charts as SVG by matplotlib: for print, and where scripts do not run. Their colours are those of the page."""

import io
import re
from html import escape
from typing import TYPE_CHECKING, Any

from pairform.experiments.report.charts import Chart, Series
from pairform.experiments.report.looks import Look, Looks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKERS = "os^DvPX*"
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (7, 2, 1, 2)))
INK = "#000001"
"""Replaced with the colour of the page's text."""
BANDS = 12
"""Bands of more lines than these would hide one another."""
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: it can be searched, and read aloud
    "font.family": "sans-serif",
    "font.size": 8.5,
    "axes.linewidth": 0.6,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "text.parse_math": False,  # a dollar in a name is one
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "path.simplify_threshold": 0.5,
}


def svg(chart: Chart, looks: Looks) -> str:
    """An SVG element whose ids begin with the chart's key, so that one page can contain several."""
    import matplotlib
    from matplotlib.figure import Figure

    file = io.StringIO()
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": chart.key}):
        canvas = Figure(figsize=(6, 3.6), layout="constrained")
        draw(canvas.subplots(), chart, looks)
        canvas.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return embedded(file.getvalue(), chart)


def draw(axes: "Axes", chart: Chart, looks: Looks) -> None:
    from matplotlib.ticker import EngFormatter, MaxNLocator

    axes.set_xlabel(chart.x.label)
    axes.set_ylabel(chart.y.label)
    for series in chart.series:
        look = looks[series.name]
        if chart.kind == "lines":
            draw_line(axes, series, look, len(chart.series) <= BANDS)
        else:
            draw_point(axes, series, look, series.name in chart.front)
    if chart.front:
        corners = {series.name: (series.x[0], series.y[0]) for series in chart.series}
        steps = zip(*(corners[name] for name in chart.front), strict=True)
        axes.step(*steps, where="post", color=INK, linewidth=1, alpha=0.6, gid=tip("Pareto front"))
    axes.margins(0.05 if chart.kind == "lines" else 0.1)
    if chart.x.log:
        axes.set_xscale("log")
    elif all(isinstance(x, int) for series in chart.series for x in series.x):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if chart.y.log:
        axes.set_yscale("log")
    axes.xaxis.set_major_formatter(EngFormatter(chart.x.unit, sep=" " if chart.x.unit else ""))


def draw_line(axes: "Axes", series: Series, look: Look, band: bool) -> None:
    if band and series.low:
        axes.fill_between(series.x, series.low, series.high, color=colour(look), alpha=0.12, linewidth=0)
    every = max(1, len(series.x) // 8)
    marked: dict[str, Any] = {"marker": MARKERS[look.shape], "markersize": 3.5, "markevery": every}
    axes.plot(series.x, series.y, color=colour(look), gid=tip(series.name), linestyle=LINES[look.shape], **marked)


def draw_point(axes: "Axes", series: Series, look: Look, on_front: bool) -> None:
    """A point: ringed if on the front, hollow if it is not compared, with its bar."""
    (x,), (y,) = series.x, series.y
    if series.low:
        bounds = [[y - series.low[0]], [series.high[0] - y]]
        axes.errorbar(x, y, bounds, color=colour(look), elinewidth=1, capsize=2, alpha=0.6)
    if on_front:
        axes.plot(x, y, "o", markersize=13, markerfacecolor="none", color=INK, markeredgewidth=1)
    face: dict[str, Any] = {"markerfacecolor": "none"} if series.hollow else {}
    name = f"{series.name} ({series.note})" if series.note else series.name
    axes.plot(x, y, MARKERS[look.shape], markersize=6, color=colour(look), alpha=0.8, linewidth=0, gid=tip(name), **face)


def colour(look: Look) -> str:
    """Placeholder of a colour, which the page defines."""
    return f"#0001{look.colour:02x}"


def tip(text: str) -> str:
    """An SVG id that `embedded` turns into a title, which a browser shows as a tooltip."""
    return f"tip-{text.encode().hex()}"


def embedded(text: str, chart: Chart) -> str:
    """The SVG element of a file, to stand in a page."""
    text = text[text.index("<svg") :]
    # metadata is not needed, and a style sheet would be blocked by the page's policy
    text = re.sub(r"<metadata>.*?</metadata>|<style .*?</style>", "", text, flags=re.DOTALL)
    # the page sets the size; the label is for screen readers
    text = re.sub(
        r'<svg .*?viewBox="([^"]*)".*?>',
        lambda found: f'<svg viewBox="{found[1]}" role="img" aria-label="{escape(chart.title)}">',
        text,
        count=1,
        flags=re.DOTALL,
    )
    # before ids get their prefix: those made by `tip`
    text = re.sub(
        r'<g id="tip-([0-9a-f]+)">', lambda found: f"<g><title>{escape(bytes.fromhex(found[1]).decode())}</title>", text
    )
    text = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{chart.key}-", text)
    return re.sub(r"#0001([0-9a-f]{2})", lambda found: f"var(--series-{int(found[1], 16)})", text.replace(INK, "currentColor"))
