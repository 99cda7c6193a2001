"""How single sizes change."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from pairform.registry import Scales

ONE = Fraction(1)


@dataclass(frozen=True)
class Factors:
    """How a stack is scaled.

    width:  its new width over the old one.
    window: the same of sliding windows.
    source: the new and the old number of layers of the encoder that it reads.
    head:   inside a block with heads, its new head dimension over the old one.
    """

    width: Fraction
    window: Fraction = ONE
    source: tuple[int, int] = (1, 1)
    head: Fraction = ONE


def nearest(value: Fraction, step: int = 1) -> int:
    """The positive multiple of `step` that is nearest to `value`, of two the larger."""
    return step * max(1, int(value / step + Fraction(1, 2)))


def proportional(size: int, factor: Fraction) -> int:
    """A size times `factor`, rounded to a multiple of 8, or below 64 of 4 or 2, so that it is at most 1/16 off.

    Below 16, an odd size may become any number.
    """
    if factor == 1:
        return size
    value = size * factor
    step = next((step for step in (8, 4, 2) if value >= 8 * step), 1 if size % 2 else 2)
    return nearest(value, step)


def of_parity(size: int, value: Fraction) -> int:
    """The size nearest to `value` that is even if `size` is."""
    return nearest(value, 1 if size % 2 else 2)


def changed(mark: Scales, value: Any, factors: Factors) -> Any:
    """The new value of a field with this mark. That of heads is chosen in `scaled_blocks`."""
    if mark.by == "width":
        return proportional(value, factors.width)
    if mark.by == "head_part":
        return value if factors.head == 1 else of_parity(value, value * factors.head)
    if mark.by == "head_pairs":
        count = len(value) if factors.head == 1 else nearest(len(value) * factors.head)
        return [value[index * len(value) // count] for index in range(count)]
    if mark.by == "scores":
        return value if factors.head == 1 else value * float(factors.head) ** -0.5
    if mark.by == "window":
        return [side if factors.window == 1 or not side else nearest(side * factors.window) for side in value]
    if mark.by == "source_layer" and isinstance(value, int):
        return layer_at(value, *factors.source)
    return value


def layer_at(layer: int, new: int, old: int) -> int:
    """The number of the layer at the same relative depth, from the end for a negative number."""
    if new == old:
        return layer
    count = nearest(Fraction((layer + 1 if layer >= 0 else -layer) * new, old))
    return min(count, new) - 1 if layer >= 0 else -min(count, new)
