"""Scaling variants to the size of the first, so that comparisons are not confounded by size."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from pairform.assemblies.checkpoints.reading.load_spec import patch_spec
from pairform.assemblies.specs.model import ModelSpec
from pairform.experiments.results.records import Match
from pairform.experiments.study.spec import MatchSpec
from pairform.registry import Problem, SpecError, merge_patch, patch_at
from pairform.training.costs.trials import costs
from pairform.training.data.batches import Lengths

Count = Callable[[ModelSpec], int]
LARGEST_SCALE = 1000
"""A size is not scaled up beyond this factor."""


def counter(by: str, lengths: Lengths, dtype: str) -> Count:
    """A function that counts a model's parameters, or the FLOPs of a forward pass at these lengths."""
    return lambda spec: costs(spec, lengths, dtype)[by]


def match(spec: ModelSpec, wanted: int, settings: MatchSpec, count: Count) -> tuple[dict[str, Any], Match]:
    """Find the patch that brings a variant's size closest to `wanted`.

    Returns:
        The patch, empty if the variant is closest as it is, and the size reached.

    Raises:
        SpecError: the closest size is outside the tolerance, or the variant has none of the paths.
    """
    document = spec.document()
    sizes = {path: value for path in settings.paths if isinstance(value := value_at(document, path), int)}
    if not sizes:
        raise SpecError(
            Problem("match.paths", f"none of {', '.join(settings.paths)} in this variant", "a whole number to change")
        )

    @functools.cache
    def size_at(scale: int) -> int:
        return count(patch_spec(spec, scaled(sizes, scale, settings.multiple)))

    start = max(sizes.values()) // settings.multiple
    candidates: list[tuple[dict[str, Any], int]] = [({}, count(spec))]
    bracket = around(size_at, wanted, max(start, 1))
    candidates += [(scaled(sizes, scale, settings.multiple), size_at(scale)) for scale in bracket]
    patch, found = min(candidates, key=lambda candidate: abs(candidate[1] - wanted))
    reached = Match(by=settings.by, wanted=wanted, found=found, tolerance=settings.tolerance)
    if abs(reached.difference) > settings.tolerance:
        nearest = f"{found:,} {settings.by} at the closest, {reached.difference:+.2%}"
        remedy = "Raise match.tolerance, lower match.multiple, or name other match.paths."
        raise SpecError(Problem("match", nearest, f"{wanted:,} within {settings.tolerance:.2%}", remedy))
    return patch, reached


def around(count: Callable[[int], int], wanted: int, start: int) -> tuple[int, int]:
    """Neighbouring scales between which a growing count reaches `wanted`; the closest scale twice if it never does.

    Interpolates between counts, since each builds the model on the meta device.
    """
    low, high, most = 1, start, LARGEST_SCALE * start
    if count(low) >= wanted:
        return low, low
    while count(high) < wanted:
        low, high = high, 2 * high
        if low > most:
            return low, low
    # count(low) < wanted <= count(high)
    while high - low > 1:
        part = (wanted - count(low)) / (count(high) - count(low))
        guess = min(max(low + round((high - low) * part), low + 1), high - 1)
        if count(guess) < wanted:
            low = guess
        else:
            high = guess
    return low, high


def scaled(sizes: Mapping[str, int], scale: int, multiple: int) -> dict[str, Any]:
    """A patch that sets the largest size to `scale` multiples and keeps the ratios of the others to it."""
    largest = max(sizes.values())
    patch: dict[str, Any] = {}
    for path, size in sizes.items():
        patch = merge_patch(patch, patch_at(path, multiple * max(1, round(scale * size / largest))))
    return patch


def value_at(document: Any, path: str) -> Any:
    """The value at `a.b` in a document, or None."""
    for key in path.split("."):
        document = document.get(key) if isinstance(document, Mapping) else None
    return document
