"""Corrections of p-values for many comparisons."""

from collections.abc import Sequence
from typing import Literal

Correction = Literal["holm", "benjamini_hochberg", "none"]
NAMES: dict[Correction, str] = {"holm": "Holm", "benjamini_hochberg": "Benjamini-Hochberg"}


def adjust(values: Sequence[float], correction: Correction) -> list[float]:
    """Adjusted p-values: a comparison stands if its own is below the error rate.

    holm:               controls the probability of at least one false finding, whatever the dependence of the comparisons
                        (Holm 1979, "A simple sequentially rejective multiple test procedure").
    benjamini_hochberg: controls the expected fraction of false findings among all, for comparisons that are independent or
                        positively dependent (Benjamini and Hochberg 1995, "Controlling the false discovery rate").
    """
    count = len(values)
    order = sorted(range(count), key=values.__getitem__)
    adjusted = list(map(float, values))
    if correction == "holm":
        largest = 0.0
        for rank, place in enumerate(order):
            largest = adjusted[place] = min(1.0, max(largest, (count - rank) * values[place]))
    elif correction == "benjamini_hochberg":
        smallest = 1.0
        for rank, place in reversed(list(enumerate(order, 1))):
            smallest = adjusted[place] = min(smallest, count / rank * values[place])
    return adjusted
