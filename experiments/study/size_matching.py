"""Variants scaled towards the size of the first, so that a difference between them is not one of size."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from pairform.assemblies.checkpoints.reading.load_spec import patch_spec
from pairform.assemblies.specs.model import ModelSpec
from pairform.experiments.results.records import Match
from pairform.experiments.study.spec import MatchSpec
from pairform.registry import Problem, SpecError, merge_patch
from pairform.training.costs import costs
from pairform.training.data.batches import Lengths

Count = Callable[[ModelSpec], int]
FARTHEST = 1000
"""Times as large as it was, a size is not looked for any more."""


def counter(by: str, lengths: Lengths, dtype: str) -> Count:
    """Parameters of a model, or the FLOPs of a pass at these lengths of source and target."""
    return lambda spec: costs(spec, lengths, dtype)[by]


def match(spec: ModelSpec, wanted: int, settings: MatchSpec, count: Count) -> tuple[dict[str, Any], Match]:
    """The patch that brings a variant nearest to `wanted`, and what it comes to; too far from it raises `SpecError`."""
    document = spec.document()
    sizes = {path: value for path in settings.paths if isinstance(value := value_at(document, path), int)}
    if not sizes:
        raise SpecError(
            Problem("match.paths", f"none of {', '.join(settings.paths)} in this variant", "a whole number to change")
        )

    @functools.cache
    def at(scale: int) -> int:
        return count(patch_spec(spec, scaled(sizes, scale, settings.multiple)))

    start = max(sizes.values()) // settings.multiple
    candidates: list[tuple[dict[str, Any], int]] = [({}, count(spec))]
    candidates += [(scaled(sizes, scale, settings.multiple), at(scale)) for scale in around(at, wanted, max(start, 1))]
    patch, found = min(candidates, key=lambda candidate: abs(candidate[1] - wanted))
    reached = Match(by=settings.by, wanted=wanted, found=found, tolerance=settings.tolerance)
    if abs(reached.difference) > settings.tolerance:
        nearest = f"{found:,} {settings.by} at the nearest, {reached.difference:+.2%}"
        remedy = "Raise match.tolerance, lower match.multiple, or name other match.paths."
        raise SpecError(Problem("match", nearest, f"{wanted:,} within {settings.tolerance:.2%}", remedy))
    return patch, reached


def around(count: Callable[[int], int], wanted: int, start: int) -> tuple[int, int]:
    """The neighbours between which a count that grows reaches `wanted`; where it does not, the nearest number, twice."""
    low, high, most = 1, start, FARTHEST * start
    if count(low) >= wanted:
        return low, low
    while count(high) < wanted:
        low, high = high, 2 * high
        if low > most:
            return low, low
    while high - low > 1:
        part = (wanted - count(low)) / (count(high) - count(low))
        guess = min(max(low + round((high - low) * part), low + 1), high - 1)
        if count(guess) < wanted:
            low = guess
        else:
            high = guess
    return low, high


def scaled(sizes: Mapping[str, int], scale: int, multiple: int) -> dict[str, Any]:
    """A patch that makes the largest size `scale` multiples, and the others as large beside it as they were."""
    largest = max(sizes.values())
    patch: dict[str, Any] = {}
    for path, size in sizes.items():
        patch = merge_patch(patch, patch_at(path, multiple * max(1, round(scale * size / largest))))
    return patch


def patch_at(path: str, value: Any) -> dict[str, Any]:
    """`{"a": {"b": value}}` for `a.b`."""
    for key in reversed(path.split(".")):
        value = {key: value}
    return dict(value)


def value_at(document: Any, path: str) -> Any:
    """What stands at `a.b` in a document; None where nothing does."""
    for key in path.split("."):
        document = document.get(key) if isinstance(document, Mapping) else None
    return document
