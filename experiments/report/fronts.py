"""Quality against costs."""

from collections.abc import Mapping

from pairform.experiments.report.charts import Axis, Chart, Series, wide
from pairform.experiments.report.reading import Report, Variant
from pairform.experiments.report.section import Section

COSTS = {
    "parameters": ("parameters", ""),
    "flops": ("FLOPs of a forward pass", ""),
    "latency": ("time to generate a target", "s"),
}
"""Label and unit of each cost."""
TEXT = (
    "Lower is better on both axes. Variants on the Pareto front, which no other variant beats on both, are ringed and joined "
    "by steps. Variants are compared once all of their seeds are done. Bars are confidence intervals."
)


def fronts(report: Report) -> Section | None:
    """A chart for each cost that was measured."""
    charts = [chart for cost, words in COSTS.items() if (chart := front_chart(report.variants, cost, *words))]
    return Section("fronts", "Quality and cost", TEXT, charts=charts) if charts else None


def front_chart(variants: list[Variant], cost: str, label: str, unit: str) -> Chart | None:
    """Loss against a cost, with the Pareto front; None if the cost was not measured.

    A variant with failed or unfinished seeds is drawn but not compared: its mean may be that of its best seeds.
    """
    drawn = [variant for variant in variants if {cost, "loss"} <= variant.measured.keys()]
    if not drawn:
        return None
    series = [point(variant, cost) for variant in drawn]
    front = pareto_front({each.name: (each.x[0], each.y[0]) for each in series if not each.hollow})
    caption = f"On the front: {', '.join(front)}." if front else "No variant is complete yet."
    if partial := [variant.progress for variant in drawn if not variant.complete]:
        caption += f" Hollow points are not compared, because some seeds failed or are unfinished: {', '.join(partial)}."
    log = wide(each.x[0] for each in series)
    return Chart(cost, f"Loss and {label}", "points", Axis(label, unit, log), Axis("loss"), series, caption, front)


def point(variant: Variant, cost: str) -> Series:
    """A variant, with the confidence interval of its loss."""
    price, loss = variant.measured[cost].mean, variant.measured["loss"]
    half = loss.half_width
    single = {
        f"seed {seed}": ([result[cost]], [result["loss"]])
        for seed, result in variant.seeds.items()
        if result.get(cost) is not None and result.get("loss") is not None
    }
    return Series(
        variant.name,
        [price],
        [loss.mean],
        [loss.mean - half] if half else (),
        [loss.mean + half] if half else (),
        single if len(single) > 1 else {},
        not variant.complete,
        "" if variant.complete else f"{len(variant.seeds)} of {len(variant.trials)} seeds",
    )


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
