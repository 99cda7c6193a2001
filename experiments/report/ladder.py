"""The report's section on a ladder: a table of laws and multipliers, and the losses against compute."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pairform.experiments.results.ladder import VariantLaw
from pairform.experiments.results.law_sentences import interval_of, sentences
from pairform.experiments.statistics.scaling import cells_of, mean_of

WIDTH, HEIGHT, LEFT, BOTTOM, MARGIN = 640, 360, 64, 44, 14
"""Sizes of the chart, and its margins."""
LOOKS = 8
"""Number of series that the page has colours for; they differ by dashes too."""
TICKS = 5


@dataclass(frozen=True)
class Series:
    """One variant: its points in pixels, each with a text."""

    name: str
    look: int
    points: list[tuple[float, float, str]]

    @property
    def line(self) -> str:
        """Through the points whose loss no smaller compute reaches. Pixels are counted from the top."""
        lowest = -math.inf
        found = []
        for x, y, _ in self.points:
            if y > lowest:
                lowest = y
                found.append(f"{x:.1f},{y:.1f}")
        return " ".join(found)

    @property
    def dashes(self) -> str:
        return ("none", "6 3", "2 3", "8 3 2 3")[self.look % 4]


@dataclass(frozen=True)
class Section:
    """What the template shows. ticks: places in pixels with their labels."""

    rows: list[tuple[str, str, str]]
    findings: list[tuple[str, list[str]]]
    series: list[Series]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    bottom: int = HEIGHT - BOTTOM


def section(laws: Sequence[VariantLaw]) -> Section | None:
    """The section; None without sizes that are done."""
    means = {
        each.variant: sorted(
            (math.log10(mean_of("flops", cell)), mean_of("loss", cell), cell) for cell in cells_of(each.observations)
        )
        for each in laws
    }
    points = [point for own in means.values() for point in own]
    if not points:
        return None
    x_low, x_high = span([x for x, _, _ in points])
    y_low, y_high = span([y for _, y, _ in points])

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - MARGIN)
        down = HEIGHT - BOTTOM - (y - y_low) / (y_high - y_low) * (HEIGHT - BOTTOM - MARGIN)
        return round(across, 1), round(down, 1)

    series = [
        Series(
            name,
            number % LOOKS,
            [(*place(x, y), f"{name}, {cell[0].cell}: loss {y:.4f} at {10**x:.3g} FLOPs") for x, y, cell in own],
        )
        for number, (name, own) in enumerate(means.items())
    ]
    x_ticks = [(place(x, y_low)[0], f"{10**x:.2g}") for x in even(x_low, x_high)]
    y_ticks = [(place(x_low, y)[1], f"{y:.3g}") for y in even(y_low, y_high)]
    rows = [(each.variant, *worth(each)) for each in laws]
    return Section(rows, [(each.variant, sentences(each)) for each in laws], series, x_ticks, y_ticks)


def worth(law: VariantLaw) -> tuple[str, str]:
    """The multiplier with its interval, and by interpolation; empty where there is none."""
    if law.multiplier is None:
        return "", ""
    check = law.multiplier.interpolated
    return interval_of(law.multiplier.estimate) or "not identified", "" if check is None else f"{check:.3g}"


def span(values: Sequence[float]) -> tuple[float, float]:
    """The range of an axis, a little wider than its values."""
    low, high = min(values), max(values)
    room = 0.05 * (high - low) or 0.5
    return low - room, high + room


def even(low: float, high: float) -> list[float]:
    return [low + (high - low) * (step + 0.5) / TICKS for step in range(TICKS)]
