"""The results as a page: tables in Markdown, and the losses as a figure."""

import statistics
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

Result = dict[str, Any]
PREFIX_LM = "as prefix_lm"
COLOURS = {"converted": "#1f77b4", "converted, warm-up": "#2ca02c", "new": "#d62728"}


def write(results: Sequence[Result], folder: Path) -> None:
    """Write `results.md` and `losses.svg`."""
    pretrained, *runs = results
    lines = [*losses_table(runs), "", *measures_table(pretrained, runs), "", "![Held-out losses](losses.svg)"]
    (folder / "results.md").write_text("\n".join(lines) + "\n", "utf-8")
    draw(runs, folder / "losses.svg")


def groups(runs: Sequence[Result]) -> Iterator[tuple[tuple[str, str, str], list[Result]]]:
    """The runs that differ only in their seed, by pair, objective and start."""

    def key(run: Result) -> tuple[str, str, str]:
        return run["pair"], run["objective"], run["start"]

    for name, found in groupby(runs, key):  # they are in this order
        yield name, list(found)


def losses_table(runs: Sequence[Result]) -> Iterator[str]:
    """Final losses, and after which part of its tokens a pair reached the final loss of the same pair from new weights."""
    new = {name[:2]: found for name, found in groups(runs) if name[2] == "new"}
    yield "| pair | objective | start | first loss | last loss | last as PrefixLM | reaches last loss of new weights after |"
    yield "|---|---|---|---|---|---|---|"
    for (pair, objective, start), found in groups(runs):
        first = shown([run["losses"]["own"][0][1] for run in found])
        last, prefix = (shown([run["losses"][name][-1][1] for run in found]) for name in ("own", PREFIX_LM))
        reached = [reaches(run, other["losses"]["own"][-1][1]) for run, other in zip(found, new[pair, objective], strict=True)]
        parts = "" if start == "new" else ", ".join("never" if part is None else f"{part:.0%}" for part in reached)
        yield f"| {pair} | {objective} | {start} | {first} | {last} | {prefix} | {parts} |"


def reaches(run: Result, loss: float) -> float | None:
    """The part of its tokens after which a run's held-out loss is at most `loss`."""
    curve = run["losses"]["own"]
    return next((tokens / curve[-1][0] for tokens, value in curve if value <= loss), None)


def measures_table(pretrained: Result, runs: Sequence[Result]) -> Iterator[str]:
    yield "| pair | objective | start | representation | use of the source |"
    yield "|---|---|---|---|---|"
    yield f"| {pretrained['model']} | | | {pretrained['representation']:.3f} | |"
    for (pair, objective, start), found in groups(runs):
        measured = " | ".join(shown([run[name] for run in found]) for name in ("representation", "use of the source"))
        yield f"| {pair} | {objective} | {start} | {measured} |"


def shown(values: Sequence[float], digits: int = 3) -> str:
    """Mean and standard deviation over seeds."""
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def draw(runs: Sequence[Result], file: Path) -> None:
    """Held-out losses against tokens, a panel for each pair and objective, a line for each run."""
    from matplotlib.figure import Figure

    panels = list(dict.fromkeys((run["pair"], run["objective"]) for run in runs))
    figure = Figure(figsize=(3.2 * len(panels), 3.2), layout="constrained")
    axes: Sequence[Any] = figure.subplots(1, len(panels), sharey=True)
    for axis, panel in zip(axes, panels, strict=True):
        axis.set_title(f"{panel[0]} pair, {panel[1]}")
        axis.set_xlabel("tokens")
        for run in runs:
            if (run["pair"], run["objective"]) == panel:
                label = run["start"] if run["seed"] == 0 else None
                axis.plot(*zip(*run["losses"]["own"], strict=True), color=COLOURS[run["start"]], label=label, linewidth=1)
    axes[0].set_ylabel("held-out loss")
    axes[0].legend(frameon=False, loc="center right", bbox_to_anchor=(1, 0.36))
    figure.savefig(file, metadata={"Date": None})
