"""Scaled blocks: which heads an attention block gets, and which sizes the specs inside a spec get."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any, NamedTuple

from pairform.assemblies.specs.scaling.scaled_sizes import Factors, changed, nearest, of_parity
from pairform.registry import BlockSpec, Scales, Sizes, Spec, SpecError, merge_patch

COUNTS, CHANNELS = 16, 16
"""Numbers of heads, and head dimensions for each, that are tried until the block is valid."""


class Heads(NamedTuple):
    """The heads of a block. head_dim: None is the width over the number of heads."""

    heads: int
    kv_heads: int
    head_dim: int | None


def scaled(spec: Spec, factors: Factors, width: int, sizes: Sizes) -> dict[str, Any]:
    """The merge patch that scales a spec and all specs inside it.

    Args:
        spec: The spec of a block, or of a part of one.
        factors: How its stack is scaled.
        width: The old width of the stack.
        sizes: Those of the scaled stack, in which the block must be valid.
    """
    marks = marks_of(spec)
    if factors.width != 1 and "heads" in {mark.by for mark in marks.values()}:
        return with_heads(spec, marks, factors, width, sizes)
    return sizes_in(spec, factors, width, sizes)


def sizes_in(spec: Spec, factors: Factors, width: int, sizes: Sizes) -> dict[str, Any]:
    """The patch without that of the spec's own heads."""
    patch: dict[str, Any] = {}
    marks = marks_of(spec)
    for field, value in spec:
        if field in marks and value is not None:
            new: Any = changed(marks[field], value, factors)
            if new != (list(value) if isinstance(value, tuple) else value):
                patch[field] = new
        elif isinstance(value, Spec) and (inner := scaled(value, factors, width, sizes)):
            patch[field] = inner
        elif isinstance(value, Mapping):
            parts = {name: scaled(part, factors, width, sizes) for name, part in value.items() if isinstance(part, Spec)}
            if any(parts.values()):
                patch[field] = {name: part for name, part in parts.items() if part}
    return patch


def marks_of(spec: Spec) -> dict[str, Scales]:
    """The marks of a spec's fields."""
    fields = type(spec).model_fields.items()
    return {field: mark for field, info in fields for mark in info.metadata if isinstance(mark, Scales)}


def with_heads(spec: Spec, marks: Mapping[str, Scales], factors: Factors, width: int, sizes: Sizes) -> dict[str, Any]:
    """The patch of a block with heads: the first choice of heads with which it is valid, or the first if it never is."""
    names: dict[str, str] = {mark.by: field for field, mark in marks.items()}
    heads = getattr(spec, names["heads"])
    old = Heads(heads, getattr(spec, names.get("kv_heads", ""), None) or heads, getattr(spec, names.get("head_dim", ""), None))
    first: dict[str, Any] | None = None
    for new in choices(old, factors.width, width, sizes.width):
        before = Fraction(width, old.heads) if old.head_dim is None else old.head_dim
        inside = (new.head_dim or sizes.width // new.heads) / Fraction(before)
        patch = sizes_in(spec, replace(factors, head=inside), width, sizes)
        for mark, value in new._asdict().items():
            known = getattr(spec, names.get(mark, ""), None)
            if mark in names and value not in (None, known) and (mark != "kv_heads" or known is not None):
                patch[names[mark]] = value
        first = patch if first is None else first
        if is_valid(spec, patch, sizes):
            return patch
    return first or {}


def is_valid(spec: Spec, patch: Mapping[str, Any], sizes: Sizes) -> bool:
    """Whether a block is valid with this patch."""
    try:
        made = type(spec).read(merge_patch(spec.document(), patch))
    except SpecError:
        return False
    return not isinstance(made, BlockSpec) or not any(made.check(sizes))


def choices(old: Heads, factor: Fraction, width: int, new_width: int) -> Iterator[Heads]:
    """Heads for a new width, the best first.

    The number of heads is in proportion to the width, and a head keeps its channels if that puts the channels of all heads
    within 1/8 of the proportion; else it has more or fewer. Multi-head, grouped-query (with its groups) and multi-query
    attention stay what they are, with two heads or groups at least.
    """
    groups = old.heads // old.kv_heads
    channels = old.head_dim or width // old.heads
    if old.kv_heads == 1:
        counts = [(count, 1) for count in around(old.heads * factor, 1, min(2, old.heads))]
    else:
        counts = [(count * groups, count) for count in around(old.kv_heads * factor, 1, 2)]
    if old.head_dim is None:
        for heads, kv_heads in counts:
            each = new_width // heads
            if not new_width % heads and (channels % 2 or not each % 2) and channels <= 2 * each <= 4 * channels:
                yield Heads(heads, kv_heads, None)
    for heads, kv_heads in counts:
        wanted = old.heads * factor
        target = Fraction(channels) if abs(heads - wanted) * 8 <= wanted else channels * wanted / heads
        for each in around(Fraction(of_parity(channels, target)), 1 if channels % 2 else 2, 1, CHANNELS):
            yield Heads(heads, kv_heads, each)
    if old.head_dim is None:
        for heads, kv_heads in counts:
            if not new_width % heads:
                yield Heads(heads, kv_heads, None)


def around(value: Fraction, step: int, least: int, count: int = COUNTS) -> list[int]:
    """Multiples of `step` from `least` on, by their distance from `value`."""
    middle = nearest(max(value, Fraction(least)), step)
    found = (middle + sign * step * offset for offset in itertools.count() for sign in (1, -1)[: 1 + (offset > 0)])
    sizes = itertools.islice((size for size in found if size >= least), count)
    return sorted(sizes, key=lambda size: (abs(size - value), size))
