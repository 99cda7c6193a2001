"""The data of charts, from which the page draws interactive charts, static ones for print, and tables."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pairform.experiments.report.cells import Cell, Table
from pairform.experiments.report.looks import Looks
from pairform.registry import shown

RANGE = 10
"""An axis is logarithmic at first if its values differ by at least this factor."""
POINTS = 20_000
"""Most points of a chart, over all of its lines and single seeds."""
SHORTEST = 50
"""Points that a line keeps, however many lines there are."""
COLUMNS = 6
"""Places along the horizontal axis at which the table of a chart of lines gives values."""
Points = tuple[Sequence[float], Sequence[float]]
"""Horizontal and vertical coordinates."""


@dataclass(frozen=True)
class Axis:
    """An axis of a chart.

    unit: stands after the numbers, with a prefix such as k or M.
    log:  whether it is logarithmic at first; the reader can change it.
    """

    label: str
    unit: str = ""
    log: bool = False


@dataclass(frozen=True)
class Series:
    """A line, or one point, of a chart.

    name:      of a variant, as a rule, whose colour and shape it takes.
    low, high: the bounds of a line's band, or of a point's bar; empty for none.
    seeds:     the points of single seeds, by their names.
    hollow:    whether a point is not compared with others; `note` says why.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    seeds: Mapping[str, Points] = field(default_factory=dict)
    hollow: bool = False
    note: str = ""


@dataclass(frozen=True)
class Chart:
    """A chart.

    key:   an id of letters, digits and hyphens that no other chart of the page has.
    kind:  lines have many points, joined; points are single ones.
    front: the names of points that are ringed and joined by steps.
    """

    key: str
    title: str
    kind: Literal["lines", "points"]
    x: Axis
    y: Axis
    series: Sequence[Series]
    caption: str = ""
    front: Sequence[str] = ()

    def thinned(self) -> "Chart":
        """A chart that has few enough points to draw, which says how many it leaves out."""
        lines = sum(1 + len(series.seeds) for series in self.series)
        longest = max((len(series.x) for series in self.series), default=0)
        every = -(-longest // max(SHORTEST, POINTS // max(1, lines)))
        if every < 2:
            return self
        caption = f"{self.caption} One of {every} points of each line is drawn.".strip()
        return replace(self, series=[thin(series, every) for series in self.series], caption=caption)

    def table(self) -> Table:
        """What the chart shows, as numbers."""
        if self.kind == "points":
            rows = [
                [
                    Cell(series.name),
                    number(series.x[0]),
                    number(series.y[0]),
                    Cell(f"{series.low[0]:.4g} to {series.high[0]:.4g}" if series.low else ""),
                    Cell("on the front" if series.name in self.front else series.note),
                ]
                for series in self.series
            ]
            head: Sequence[str] = ("Variant", self.x.label, self.y.label, "Interval", "Note")
        else:
            places = spread(sorted({x for series in self.series for x in series.x}))
            values = [dict(zip(series.x, series.y, strict=True)) for series in self.series]
            rows = [
                [Cell(series.name), *(number(known.get(place)) for place in places)]
                for series, known in zip(self.series, values, strict=True)
            ]
            head = ("Variant", *(f"{self.x.label} {number(place).text}" for place in places))
        return Table(f"Numbers of the chart: {self.title}", head, rows, fold=f"Numbers: {self.title}")


def thin(series: Series, every: int) -> Series:
    """Every so manieth point of a line, and the last."""

    def some(values: Sequence[float]) -> Sequence[float]:
        return [*values[: -1 if values else None : every], *values[-1:]]

    seeds = {name: (some(x), some(y)) for name, (x, y) in series.seeds.items()}
    return replace(series, x=some(series.x), y=some(series.y), low=some(series.low), high=some(series.high), seeds=seeds)


def spread(values: Sequence[float]) -> Sequence[float]:
    """Some values from the first to the last."""
    last = len(values) - 1
    return [values[place] for place in sorted({round(last * part / (COLUMNS - 1)) for part in range(COLUMNS)})]


def number(value: float | None) -> Cell:
    if value is None:
        return Cell("")
    whole = float(value).is_integer() and abs(value) < 1e15
    return Cell(f"{value:,.0f}" if whole else f"{value:,.6g}", value)


def wide(values: Iterable[float]) -> bool:
    """Whether values are better shown on a logarithmic axis."""
    known = list(values)
    return bool(known) and min(known) > 0 and max(known) >= RANGE * min(known)


def embedded(charts: Iterable[Chart], looks: Looks) -> dict[str, Any]:
    """What the script of the page draws. Text is safe to show: without control characters and marks of direction."""
    return {
        "looks": {shown(name): [look.colour, look.shape] for name, look in looks.items()},
        "charts": {chart.key: chart_data(chart) for chart in charts},
    }


def chart_data(chart: Chart) -> dict[str, Any]:
    return {
        "kind": chart.kind,
        "title": shown(chart.title),
        "x": {"label": shown(chart.x.label), "unit": chart.x.unit, "log": chart.x.log},
        "y": {"label": shown(chart.y.label), "unit": chart.y.unit, "log": chart.y.log},
        "front": list(map(shown, chart.front)),
        "series": [
            {
                "name": shown(series.name),
                "x": digits(series.x),
                "y": digits(series.y),
                "low": digits(series.low),
                "high": digits(series.high),
                "seeds": {shown(name): [digits(x), digits(y)] for name, (x, y) in series.seeds.items()},
                "hollow": series.hollow,
                "note": shown(series.note),
            }
            for series in chart.series
        ],
    }


def digits(values: Sequence[float]) -> list[float]:
    """Six digits: more than a screen shows. Whole numbers stay whole."""
    return [value if isinstance(value, int) else float(f"{value:.6g}") for value in values]
