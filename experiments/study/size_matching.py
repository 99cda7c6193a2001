"""Scaling variants to the size of the first, so that comparisons are not confounded by size."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from pairform.assemblies.checkpoints.reading.load_spec import patch_spec
from pairform.assemblies.specs.model import ModelSpec
from pairform.experiments.results.records import Match
from pairform.experiments.study.contents import StudyContents
from pairform.experiments.study.spec import MatchSpec
from pairform.experiments.study.steps import step_seconds
from pairform.registry import Problem, SpecError, merge_patch, patch_at
from pairform.training.costs.trials import costs
from pairform.training.settings import TrainingSpec

Count = Callable[[ModelSpec], int | float]
TIMED = 8
"""Training steps that are timed; the fastest counts, since whatever else the machine does only adds to it."""
LARGEST_SCALE = 1000
"""A size is not scaled up beyond this factor."""


def counter(by: str, training: TrainingSpec, contents: StudyContents) -> Count:
    """A function that counts a model's parameters, or FLOPs of a forward pass, or measures the seconds of a training step."""
    if by == "seconds":
        return lambda spec: step_seconds(spec, training, contents.open(spec), steps=TIMED)
    return lambda spec: costs(spec, contents.open(spec).lengths, training.dtype)[by]


def match(spec: ModelSpec, wanted: float, settings: MatchSpec, count: Count) -> tuple[dict[str, Any], Match]:
    """Find the patch that brings a variant's size closest to `wanted`.

    Returns:
        The patch, empty if the variant is closest as it is, and the size reached.

    Raises:
        SpecError: the closest size is outside the tolerance, or the variant has none of the paths, unless such variants are
            flagged.
    """
    document = spec.document()
    sizes = {path: value for path in settings.paths if isinstance(value := value_at(document, path), int)}
    flagged = settings.unmatched == "flag"
    if not sizes and not flagged:
        raise SpecError(
            Problem("match.paths", f"none of {', '.join(settings.paths)} in this variant", "a whole number to change")
        )

    @functools.cache
    def size_at(scale: int) -> float:
        return count(patch_spec(spec, scaled(sizes, scale, settings.multiple)))

    candidates: list[tuple[dict[str, Any], float]] = [({}, count(spec))]
    bracket = around(size_at, wanted, max(max(sizes.values()) // settings.multiple, 1)) if sizes else ()
    candidates += [(scaled(sizes, scale, settings.multiple), size_at(scale)) for scale in bracket]
    patch, found = min(candidates, key=lambda candidate: abs(candidate[1] - wanted))
    reached = Match(by=settings.by, wanted=wanted, found=found, tolerance=settings.allowed)
    if not reached.matched and not flagged:
        nearest = f"{reached.size(found)} at the closest, {reached.difference:+.2%}"
        remedy = "Raise match.tolerance, lower match.multiple, name other match.paths, or set match.unmatched to flag."
        raise SpecError(Problem("match", nearest, f"{reached.size(wanted)} within {settings.allowed:.2%}", remedy))
    return patch, reached


def around(count: Callable[[int], float], wanted: float, start: int) -> tuple[int, int]:
    """Neighbouring scales between which a growing count reaches `wanted`; the closest scale twice if it never does.

    Interpolates between counts, since each builds a model.
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
