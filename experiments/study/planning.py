"""From a study to its trials. Every error that can be found before training is found here, before the first trial starts."""

import itertools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pairform.assemblies.analysis.inspection import inspect
from pairform.assemblies.checkpoints.reading.load_spec import patch_spec
from pairform.assemblies.checkpoints.writing.folder import check_space
from pairform.assemblies.specs.model import ModelSpec
from pairform.experiments.results.records import TRIALS, Trial
from pairform.experiments.study.size_matching import Count, counter, match
from pairform.experiments.study.spec import MatchSpec, StudySpec
from pairform.experiments.study.variants import Combination, Variant, combination, make_variant
from pairform.registry import (
    PairformError,
    Problem,
    SpecError,
    as_object,
    in_file,
    merge_patch,
    read_json,
    resolve,
    shorten,
    thaw,
)
from pairform.training.data.batches import Contents, Lengths, check_lengths, check_spec, fingerprint, lengths_read
from pairform.training.settings import check_ignored

BYTES = 20_000
"""Upper bound of the size of a trial's files, apart from its metrics."""
LINE = 300
"""Upper bound of the bytes of a line of metrics."""


def read_study(file: Path, patch: Mapping[str, Any] | None = None) -> StudySpec:
    """Read a study, with its base expanded, so that it depends on no other spec file.

    Args:
        file: The study as JSON.
        patch: Merge patch on it.

    Raises:
        SpecError: the file cannot be read, or the study is invalid.
    """
    try:
        document, changes = read_json(file), as_object(patch or {}, "patch")
        study = StudySpec.read(merge_patch(document, changes, StudySpec))
        check_ignored(study.training, document, changes)
        base = thaw(study.base)
        resolved = resolve(ModelSpec, {"extends": base} if isinstance(base, str) else base, file.parent)
        return study.model_copy(update={"base": ModelSpec.read(resolved, where="base").document()})
    except SpecError as error:
        known = [problem for problem in error.problems if str(file) in problem.where]
        raise SpecError(known or in_file(str(file), error)) from None


def plan_trials(study: StudySpec, folder: Path, contents: Contents) -> list[Trial]:
    """Every trial of a study: every variant at every point of the grid, with every seed.

    Raises:
        SpecError: with the problems of all variants.
    """
    points = [dict(zip(study.grid, values, strict=True)) for values in itertools.product(*study.grid.values())]
    combinations = [combination(study, name, point) for name in study.variants for point in points]
    return trials_for(study, contents, make_variants(study, folder, contents, combinations))


def make_variants(study: StudySpec, folder: Path, contents: Contents, combinations: list[Combination]) -> list[Variant]:
    """Validated variants at points of the grid. Where variants are scaled to the first one's size, it comes first.

    Each model is run on the meta device at the data's longest lengths. The problems of all variants are raised together.
    """
    variants: list[Variant] = []
    problems: list[Problem] = []
    wanted: dict[str, int] = {}
    for each in combinations:
        try:
            variant = make_variant(study, each, folder)
            lengths = check_variant(variant, contents)
            if study.match is not None:
                count = counter(study.match.by, lengths, variant.training.dtype)
                if each.variant == next(iter(study.variants)):
                    wanted[each.shown] = count(variant.spec)
                elif each.shown in wanted:
                    variant = matched(variant, study.match, wanted[each.shown], count)
            variants.append(variant)
        except PairformError as error:
            problems += [
                problem if problem.where.startswith("data") else problem.inside(each.where) for problem in error.problems
            ]
    if problems:
        raise SpecError(list(dict.fromkeys(problems)))
    return variants


def trials_for(study: StudySpec, contents: Contents, variants: list[Variant]) -> list[Trial]:
    """The trials of some variants, seed by seed, so that a run that ends early leaves about as many of each."""
    order = itertools.count()
    names: dict[str, str] = {}
    for variant in variants:
        if names.setdefault(variant.folder, variant.name) != variant.name:
            found = f"{shorten(variant.name)} and {shorten(names[variant.folder])}, whose folders would share the name"
            raise SpecError(Problem("variants", f"{found} {variant.folder}", "names that differ more"))
    return [
        Trial(
            name=f"{variant.folder}-seed{seed}",
            number=next(order),
            variant=variant.name,
            point=variant.shown,
            seed=seed,
            patches=variant.patches,
            spec=variant.spec.document(),
            training=variant.training,
            data=fingerprint(contents.digests),
            match=variant.match,
        )
        for seed in study.seeds
        for variant in variants
    ]


def matched(variant: Variant, settings: MatchSpec, wanted: int, count: Count) -> Variant:
    """The variant scaled to the size `wanted`, with one more patch."""
    patch, reached = match(variant.spec, wanted, settings, count)
    patches = (*variant.patches, patch) if patch else variant.patches
    return replace(variant, patches=patches, spec=patch_spec(variant.spec, patch), match=reached)


def check_variant(variant: Variant, contents: Contents) -> Lengths:
    """Check that the model can be trained on the data; the data's longest source and target, in tokens."""
    if problems := list(check_spec(variant.spec)):
        raise SpecError(problems)
    check_device(variant.training.device)
    examples = contents.open(variant.spec)
    if problems := list(check_lengths(examples, variant.training.batch)):
        raise SpecError(problems)
    source, target = lengths_read(variant.spec, examples.lengths)
    try:
        inspect(variant.spec, source_length=source, target_length=target)
    except PairformError:
        raise
    except Exception as error:  # whatever a block raises for lengths that it does not support
        found = f"{type(error).__name__}: {error}"
        raise SpecError(Problem("", found, f"a model that takes {source} and {target} tokens")) from None
    return examples.lengths


def check_device(name: str) -> None:
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError):
        raise SpecError(Problem("training.device", repr(name), "a device that torch can use here")) from None


def check_room(out: Path, trials: list[Trial]) -> None:
    """Check that the disk has space for the trials' files."""
    needed = sum(
        BYTES + len(str(trial.spec)) + LINE * 2 * (1 + trial.training.steps // trial.training.log_every) for trial in trials
    )
    check_space(out.absolute() / TRIALS, needed, f"for {len(trials)} trials")
