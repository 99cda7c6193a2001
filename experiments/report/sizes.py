"""The section on sizes: the losses against compute, scaling laws and compute multipliers."""

from pairform.experiments.report.cells import Cell, Table
from pairform.experiments.report.charts import Axis, Chart, Series, wide
from pairform.experiments.report.reading import LONGEST_NAME, Report
from pairform.experiments.report.section import Section
from pairform.experiments.results.ladder import VariantLaw
from pairform.experiments.results.law_sentences import interval_of, sentences
from pairform.experiments.statistics.scaling import frontier
from pairform.registry.errors import cut_middle

TEXT = (
    "Each variant at each size of the ladder, with a scaling law of its losses. The compute multiplier is the factor of "
    "compute at which the first variant reaches a variant's loss: above 1, the variant saves compute."
)


def sizes(report: Report) -> Section | None:
    """The laws of a study with a ladder; None without trials that are done."""
    if not report.ladder:
        return None
    names = {law.variant: cut_middle(law.variant, LONGEST_NAME) for law in report.ladder}
    series = [line(names[law.variant], law) for law in report.ladder]
    chart = Chart(
        "ladder",
        "Loss and training compute",
        "lines",
        Axis("FLOPs of training", log=wide(x for each in series for x in each.x)),
        Axis("loss", log=wide(y for each in series for y in each.y)),
        series,
        "Means over finished seeds, of the sizes and points of the grid whose loss no smaller compute reaches.",
    )
    rows = [[Cell(names[law.variant]), *map(Cell, worth(law))] for law in report.ladder]
    table = Table("Compute multiplier of each variant", ("Variant", "Multiplier", "By interpolation"), rows)
    said = [(names[law.variant], [" ".join(each[:1].upper() + each[1:] for each in sentences(law))]) for law in report.ladder]
    return Section("sizes", "Sizes", TEXT, findings=said, tables=[table], charts=[chart])


def line(name: str, law: VariantLaw) -> Series:
    points = frontier(law.observations)
    return Series(name, [compute for compute, _ in points], [loss for _, loss in points])


def worth(law: VariantLaw) -> tuple[str, str]:
    """The multiplier with its interval, and by interpolation; empty where there is none."""
    if law.multiplier is None:
        return "", ""
    check = law.multiplier.interpolated
    return interval_of(law.multiplier.estimate) or "not identified", "" if check is None else f"{check:.3g}"
