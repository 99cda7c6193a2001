"""Scaling variants to the size of the first, so that comparisons are not confounded by size."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pairform.assemblies.checkpoints.reading.load_spec import patch_spec
from pairform.assemblies.specs.model import ModelSpec
from pairform.experiments.results.matched_size import Match, amount
from pairform.experiments.results.records import STUDY, Trial, trials_of
from pairform.experiments.study.contents import StudyContents
from pairform.experiments.study.limits import MatchSpec
from pairform.experiments.study.spec import StudySpec
from pairform.experiments.study.steps import step_seconds
from pairform.experiments.study.variants import Variant, make_variant
from pairform.registry import Problem, SpecError, difference, freeze, merge_patch, patch_at, read_json, thaw
from pairform.training.costs.trials import costs
from pairform.training.settings import TrainingSpec

Count = Callable[[ModelSpec], int | float]
Recount = Callable[[ModelSpec], tuple[float, float]]
Found = tuple[dict[str, Any], Match]
"""A patch, empty for a model that is closest as it is, and the size reached."""
Kind = tuple[ModelSpec, int, str, str, str, int]
TIMED = 8
"""Training steps that are timed; the fastest counts, since whatever else the machine does only adds to it."""
ROUNDS = 3
LARGEST_SCALE = 1000
"""A size is not scaled up beyond this factor."""


def known_matches(out: Path, study: StudySpec) -> dict[str, Trial]:
    """A trial of each variant in a study's folder that was scaled as the study asks, by its name with the tuned values.

    Timing a model again would give another size. So the one in the trial's record, which is written before the first trial
    starts, is kept.
    """
    if study.match is None or not (out / STUDY).is_file():
        return {}
    previous = StudySpec.read(read_json(out / STUDY), where=str(out / STUDY)).match
    kept = {"by", "paths", "multiple"}
    if previous is None or previous.model_dump(include=kept) != study.match.model_dump(include=kept):
        return {}
    return {f"{trial.variant} {trial.setting}".strip(): trial for trial in trials_of(out) if trial.match is not None}


class SizeMatching:
    """Scales the variants of a study to the size of the first one at the same point of the grid, which it is given before.

    known: trials of an earlier run by variant, whose measured sizes are kept.
    """

    def __init__(
        self, study: StudySpec, settings: MatchSpec, folder: Path, contents: StudyContents, known: Mapping[str, Trial]
    ) -> None:
        self.study, self.settings, self.folder, self.contents, self.known = study, settings, folder, contents, known
        self.first: dict[str, Variant] = {}
        self.wanted: dict[Kind, float] = {}
        self.found: dict[tuple[Kind, Kind], Found] = {}

    def __call__(self, variant: Variant) -> Variant:
        """The variant with one more patch; the first variant as it is."""
        point = " ".join((*variant.point, *variant.setting))
        if variant.variant == self.study.first:
            self.first[point] = variant
            return variant
        if point not in self.first:  # it is not valid
            return variant
        # models that differ in what does not change their time, such as the learning rate, get one size
        kinds = kind_of(variant), kind_of(self.first[point])
        if kinds not in self.found:
            self.found[kinds] = self.earlier(variant) or self.search(variant, self.first[point])
        patch, reached = self.found[kinds]
        changed = replace(variant, patches=(*variant.patches, patch))
        sized = make_variant(self.study, changed, self.folder) if patch else variant
        sizes = difference(variant.spec.document(), sized.spec.document())
        return replace(sized, match=reached.model_copy(update={"changed": freeze(sizes)}))

    def search(self, variant: Variant, first: Variant) -> Found:
        """The patch that brings a variant closest to the first one, and its size."""
        count, own = self.counter(variant.training), partial(self.counter(first.training), first.spec)
        if (kind := kind_of(first)) not in self.wanted:
            self.wanted[kind] = own()
        again = partial(self.again, count, own) if self.timed else None
        return match(variant.spec, self.wanted[kind], self.settings, count, again)

    @property
    def timed(self) -> bool:
        return self.settings.by == "seconds"

    def counter(self, training: TrainingSpec) -> Count:
        """A function that counts a model's parameters or the FLOPs of a forward pass, or measures the seconds of a step."""
        if self.timed:
            return lambda spec: step_seconds(spec, training, self.contents.open(spec), steps=TIMED)
        return lambda spec: costs(spec, self.contents.open(spec).lengths, training.dtype)[self.settings.by]

    def earlier(self, variant: Variant) -> Found | None:
        """The patch and the size of an earlier trial of this variant, if sizes are measured."""
        trial = self.known.get(variant.full_name)
        if not self.timed or trial is None or trial.match is None:
            return None
        patches, own = [thaw(patch) for patch in trial.patches], len(variant.patches)
        if patches[:own] != list(variant.patches):
            return None
        reached = trial.match.model_copy(update={"tolerance": self.settings.allowed})
        return (patches[own] if len(patches) > own else {}), reached

    @staticmethod
    def again(count: Count, first: Callable[[], float], spec: ModelSpec) -> tuple[float, float]:
        """The least of some measurements of a model and of the first, which take turns: what slows the machine meets both."""
        measured = [(count(spec), first()) for _ in range(ROUNDS)]
        found, wanted = zip(*measured, strict=True)
        return min(found), min(wanted)


def kind_of(variant: Variant) -> Kind:
    """What the size of a model and the time of its steps depend on."""
    training = variant.training
    return variant.spec, training.batch, training.optimizer.name, training.dtype, training.device, training.threads


def match(spec: ModelSpec, wanted: float, settings: MatchSpec, count: Count, again: Recount | None = None) -> Found:
    """Find the patch that brings a variant's size closest to `wanted`.

    Args:
        spec: The variant's model.
        wanted: Size of the first variant.
        settings: The study's.
        count: Size of a model.
        again: Measures the chosen model and the first variant again. The closest of several measurements is closest in part by
            chance, so that it says too little about the difference.

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
    if again is not None:
        found, wanted = again(patch_spec(spec, patch))
    reached = Match(by=settings.by, wanted=wanted, found=found, tolerance=settings.allowed)
    if not reached.matched and not flagged:
        nearest = f"{amount(found)} {settings.by} at the closest, {reached.difference:+.2%}"
        remedy = "Raise match.tolerance, lower match.multiple, name other match.paths, or set match.unmatched to flag."
        raise SpecError(Problem("match", nearest, f"{amount(wanted)} within {settings.allowed:.2%}", remedy))
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
