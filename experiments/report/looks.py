"""The colour and shape of each variant, in every chart and legend of a report."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pairform.experiments.report.reading import Report, Variant

COLOURS = 8
SHAPES = "●■▲◆▼✚✖★"
"""As characters, for legends."""


@dataclass(frozen=True)
class Look:
    """colour: its number among the colours of the style sheet; shape: of markers and of dashes."""

    colour: int
    shape: int

    @property
    def sign(self) -> str:
        return SHAPES[self.shape]


Looks = Mapping[str, Look]
"""By the name of a variant. Up to 64 differ; after that, they repeat."""


def looks(report: Report, drawn: Iterable[str] = ()) -> tuple[Looks, str]:
    """The look of each variant, and of what else is drawn; and what colours and shapes stand for, if for more than variants.

    Of factors, the first has a colour for each level and the others a shape for each combination; of a grid, the variant has
    the colour and the point the shape. If there are too many for that, variants are numbered.
    """
    pairs = {variant.name: levels(report, variant) for variant in report.variants}
    colours, shapes = (list(dict.fromkeys(pair[place] for pair in pairs.values())) for place in (0, 1))
    others = [name for name in drawn if name not in pairs]
    if others or not (1 < len(colours) <= COLOURS and 1 < len(shapes) <= len(SHAPES)):
        names = enumerate(dict.fromkeys([*pairs, *others]))
        return {name: Look(place % COLOURS, place // COLOURS % len(SHAPES)) for place, name in names}, ""
    factors, grid = list(report.study.factors or {}), [*(["rung"] if report.study.ladder else []), *report.study.grid]
    by = (factors[0], [*factors[1:], *grid]) if factors else ("variant", grid)
    found = {name: Look(colours.index(one), shapes.index(other)) for name, (one, other) in pairs.items()}
    return found, f"Colour: {by[0]}. Shape: {', '.join(by[1])}."


def levels(report: Report, variant: Variant) -> tuple[str, str]:
    """What the colour and the shape of a variant stand for."""
    point, arm = variant.trials[0].point, variant.trials[0].arm
    of = report.study.arms[arm].levels if arm in report.study.arms else {}
    first, *others = of.values() or [arm]
    return first, " ".join([*others, point])
