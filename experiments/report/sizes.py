"""The section on a ladder: scaling laws, compute multipliers, and losses against compute."""

from collections.abc import Sequence

from pairform.experiments.report.cells import Cell, Table
from pairform.experiments.report.charts import Axis, Chart, Series, number, wide
from pairform.experiments.report.reading import LONGEST_NAME, Report
from pairform.experiments.report.section import Section
from pairform.experiments.results.ladder import VariantLaw
from pairform.experiments.results.law_sentences import interval_of, sentences
from pairform.experiments.statistics.scaling import cells_of, mean_of
from pairform.registry.errors import cut_middle

TEXT = (
    "Each variant at each size of the ladder, with a scaling law of its losses. The compute multiplier is the factor of compute"
    " at which the first variant reaches a variant's loss: above 1, the variant saves compute."
)


def sizes(report: Report) -> Section | None:
    """A multiplier for each variant, and its losses against compute; None without sizes that are done."""
    laws = [law for law in report.ladder if law.observations]
    if not laws:
        return None
    names = {law.variant: cut_middle(law.variant, LONGEST_NAME) for law in laws}
    return Section(
        "sizes",
        "Sizes",
        TEXT,
        findings=[(names[law.variant], [said[:1].upper() + said[1:] for said in sentences(law)]) for law in laws],
        tables=[multipliers(laws)],
        charts=[losses(laws)],
    )


def multipliers(laws: Sequence[VariantLaw]) -> Table:
    """What each variant is worth in compute."""
    rows = []
    for law in laws:
        found = law.multiplier
        worth = (
            Cell("", "") if found is None else Cell(interval_of(found.estimate) or "not identified", found.estimate.value or "")
        )
        rows.append([Cell(cut_middle(law.variant, LONGEST_NAME)), worth, number(None if found is None else found.interpolated)])
    head = ("Variant", "Multiplier", "By interpolation")
    return Table("Compute multiplier of each variant against the first", head, rows, sorts=True)


def losses(laws: Sequence[VariantLaw]) -> Chart:
    """Means over finished seeds at each size and point of the grid, with the points of single seeds."""
    series = []
    for law in laws:
        cells = sorted(cells_of(law.observations), key=lambda cell: mean_of("flops", cell))
        seeds = sorted({each.seed for each in law.observations})
        single = {seed: sorted((each.flops, each.loss) for each in law.observations if each.seed == seed) for seed in seeds}
        series.append(
            Series(
                cut_middle(law.variant, LONGEST_NAME),
                [mean_of("flops", cell) for cell in cells],
                [mean_of("loss", cell) for cell in cells],
                seeds={f"seed {seed}": ([x for x, _ in own], [y for _, y in own]) for seed, own in single.items()},
            )
        )
    flops = [x for each in series for x in each.x]
    caption = "Means over finished seeds at each size and point of the grid."
    return Chart(
        "sizes", "Loss and training compute", "lines", Axis("FLOPs of training", log=wide(flops)), Axis("loss"), series, caption
    )
