"""Draw plots of the committed results as SVG files in docs/figures/, and update the tables. Needs the extra `bench`.

python -m benchmarks.plots
"""

from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib

from benchmarks import tables
from benchmarks.tables import Plot, results

FIGURES = Path(__file__).parents[1] / "docs" / "figures"
INK = "#7d8590"
"""Readable on white and on black backgrounds."""
OURS = ("#2f81f7", "#79b8ff", "#1f6feb", "#56d4dd", "#0b4f9e")
THEIRS = ("#d29922", "#b3741f", "#e3b341", "#8f6518")


def draw(path: Path, plot: Plot) -> None:
    """Draw bars by case and setting, with a line at transformers' default."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(name for values in plot.cases.values() for name in values))
    colours = dict(zip([name for name in names if name.startswith("pairform")], cycle(OURS), strict=False))
    colours |= dict(zip([name for name in names if not name.startswith("pairform")], cycle(THEIRS), strict=False))
    rows: list[tuple[float, str, float]] = []
    ticks: list[float] = []
    at = 0.0
    for values in plot.cases.values():
        ticks.append(at + (len(values) - 1) / 2)
        rows += [(at + place, name, value) for place, (name, value) in enumerate(values.items())]
        at += len(values) + 0.8
    figure = Figure(figsize=(8, 1.5 + 0.27 * at), layout="constrained")
    axes = figure.subplots()
    largest = max(value for _, _, value in rows)
    for place, name, value in rows:
        first = name not in {other for before, other, _ in rows if before < place}
        axes.barh(place, value, height=0.8, color=colours[name], label=name if first else None)
        axes.text(value + largest * 0.01, place, f"{value:.2f}", va="center", fontsize=8, color=INK)
    axes.axvline(1, color=INK, linewidth=1, linestyle="--")
    axes.set_yticks(ticks, [words.replace(", ", "\n", 1) for words in plot.cases])
    axes.set_xlim(0, largest * 1.1)
    axes.invert_yaxis()
    axes.set_title(plot.title, color=INK, loc="left")
    axes.set_xlabel(plot.axis, color=INK)
    axes.tick_params(colors=INK, labelsize=8)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(INK)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, labelcolor=INK, fontsize=8)
    options: dict[str, Any] = {"metadata": {"Date": None}} if path.suffix == ".svg" else {"dpi": 120}
    figure.savefig(path, transparent=True, **options)


def main(folder: Path = FIGURES, kind_of_file: str = "svg") -> None:
    matplotlib.rcParams["svg.hashsalt"] = "pairform"  # the same file from the same results
    folder.mkdir(parents=True, exist_ok=True)
    found = results()
    for kind in tables.KINDS:
        for name, plot in tables.figures(found, kind).items():
            draw(folder / f"{name}.{kind_of_file}", plot)
    tables.main()


if __name__ == "__main__":
    main()
