"""Learning curves."""

from pairform.experiments.report.charts import Axis, Chart, Series, wide
from pairform.experiments.report.reading import CURVES, Curve, Report, Variant
from pairform.experiments.report.section import Section

TEXT = "Means over finished seeds; bands span the range over seeds."


def curves(report: Report) -> Section | None:
    """A chart for each measure that was logged during training."""
    charts = [chart for key, title in CURVES.items() if (chart := curve_chart(report.variants, key, title))]
    return Section("curves", "Curves", TEXT, charts=charts) if charts else None


def curve_chart(variants: list[Variant], key: tuple[str, str], title: str) -> Chart | None:
    """A measure over training steps; None if fewer than two steps were logged."""
    drawn = [variant for variant in variants if key in variant.curves]
    if max((len(variant.curves[key].steps) for variant in drawn), default=0) < 2:
        return None
    partial = [variant.progress for variant in drawn if not variant.complete]
    return Chart(
        "-".join(key).replace("_", "-"),
        title,
        "lines",
        Axis("step"),
        Axis(key[1].replace("_", " "), log=wide(value for variant in drawn for value in variant.curves[key].mean)),
        [line(variant.name, variant.curves[key]) for variant in drawn],
        f"Over finished seeds only: {', '.join(partial)}." if partial else "",
    )


def line(name: str, curve: Curve) -> Series:
    seeds = {f"seed {seed}": (list(values), list(values.values())) for seed, values in curve.seeds.items() if values}
    return Series(name, curve.steps, curve.mean, curve.low, curve.high, seeds if len(seeds) > 1 else {})
