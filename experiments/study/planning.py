"""From a study to its trials. Every error that can be found before training is found here, before the first trial starts."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from pairform.assemblies.modeling.build import parameters_of
from pairform.assemblies.specs.model import ModelSpec
from pairform.experiments.evaluation.gathering import check
from pairform.experiments.results.records import NEW, SourceFile, Trial
from pairform.experiments.study.contents import StudyContents
from pairform.experiments.study.ladder import resolved_base
from pairform.experiments.study.remarks import one_of_equals, remarks
from pairform.experiments.study.size_matching import SizeMatching
from pairform.experiments.study.spec import StudySpec
from pairform.experiments.study.variants import Combination, Variant, combination, make_variant
from pairform.experiments.study.weights import expand_base
from pairform.registry import (
    CheckpointError,
    PairformError,
    Problem,
    SpecError,
    as_object,
    freeze,
    in_file,
    merge_patch,
    read_json,
    shorten,
    thaw,
)
from pairform.training.costs.trials import costs, training_costs
from pairform.training.data.batches import Contents, Lengths, check_lengths, check_spec, fingerprint, lengths_read
from pairform.training.optimization.phases import check_phases
from pairform.training.settings import TrainingSpec, check_ignored


def read_study(file: Path, patch: Mapping[str, Any] | None = None) -> StudySpec:
    """Read a study, with its base expanded, so that it depends on no other spec file, and with the origin of its weights.

    Args:
        file: The study as JSON.
        patch: Merge patch on it.

    Returns:
        The study, which `plan_trials` takes.

    Raises:
        SpecError: the file cannot be read, or the study is invalid.
        CheckpointError: its base is a checkpoint or a conversion of some, and one cannot be read.
    """
    try:
        document, changes = read_json(file), as_object(patch or {}, "patch")
        study = StudySpec.read(merge_patch(document, changes, StudySpec))
        check_ignored(study.training, document, changes)
        base = thaw(study.base)
        if (expanded := expand_base(base, file.parent)) is not None:
            document, weights = expanded
            return study.model_copy(
                update={"base": freeze(document), "weights": freeze(weights) if study.weights is None else study.weights}
            )
        base = resolved_base(base, file.parent).document()
        return study.model_copy(update={"base": base, "weights": NEW if study.weights is None else study.weights})
    except SpecError as error:
        known = [problem for problem in error.problems if str(file) in problem.where]
        raise SpecError(known or in_file(str(file), error)) from None


def plan_trials(
    study: StudySpec, folder: Path, contents: StudyContents | Contents, known: Mapping[str, Trial] = MappingProxyType({})
) -> list[Trial]:
    """Every trial of a study: every variant at every size of the ladder, at every point of the grid and with
    all tuned values, with every seed.

    Of a study that tunes, these are more than it runs: which settings are retrained depends on the sweep.

    Args:
        study: The study.
        folder: Folder to which its paths are relative.
        contents: Its files; its data alone, as from `study.data.gather`, if it measures nothing from files.
        known: Trials whose sizes are kept, as from `known_matches`.

    Raises:
        SpecError: with the problems of all variants.
    """
    read = StudyContents.of(contents)
    points = [dict(zip(study.grid, values, strict=True)) for values in itertools.product(*study.grid.values())]
    rungs = list(study.ladder) or [""]
    combinations = [
        combination(study, name, point, rung, hyperparameters=setting)
        for name in study.arms
        for rung in rungs
        for point in points
        for setting in study.settings
    ]
    return trials_for(study, read, make_variants(study, folder, read, combinations, known))


def make_variants(
    study: StudySpec,
    folder: Path,
    contents: StudyContents,
    combinations: list[Combination],
    known: Mapping[str, Trial] = MappingProxyType({}),
) -> list[Variant]:
    """Validated variants at points of the grid. Where variants are scaled to the first one's size, it comes first.

    Each model is run on the meta device at the data's longest lengths. The problems of all variants are raised together.
    """
    variants: list[Variant] = []
    problems: dict[Problem, list[str]] = {}
    match = None if study.match is None else SizeMatching(study, study.match, folder, contents, known)
    for each in combinations:
        try:
            variant = make_variant(study, each, folder)
            lengths = check_variant(variant, contents)
            if match is not None:
                variant = match(variant)
            found = costs(variant.spec, lengths, variant.training.dtype)
            if variant.rung:
                steps = variant.training.steps * variant.training.batch
                found = {**found, **training_costs(variant.spec, lengths, variant.training.dtype, steps)}
            variants.append(replace(variant, costs=found, remarks=tuple(remarks(variant.spec))))
        except PairformError as error:
            shared = isinstance(error, CheckpointError)  # its problems name files
            for problem in error.problems:
                places = problems.setdefault(problem, [])
                if not shared and not is_of_data(problem):
                    places.append(each.where)
    if problems:
        raise SpecError(problem.of(among(places)) if places else problem for problem, places in problems.items())
    return variants


def among(places: list[str]) -> str:
    """As in `variant 'mqa' and 2 others`."""
    more = len(places) - 1
    return places[0] + (f" and {more} other{'s' * (more > 1)}" if more else "")


def is_of_data(problem: Problem) -> bool:
    """Whether a problem is in the study's data or in a line of a file, and the same for all variants."""
    return problem.where.startswith("data") or ": line " in problem.where


def trials_for(study: StudySpec, contents: StudyContents, variants: list[Variant]) -> list[Trial]:
    """The trials of some variants, seed by seed, so that a run that ends early leaves about as many of each."""
    order = itertools.count()
    names: dict[str, str] = {}
    for variant in variants:
        if names.setdefault(variant.folder, variant.full_name) != variant.full_name:
            found = f"{shorten(variant.full_name)} and {shorten(names[variant.folder])}, whose folders would share the name"
            raise SpecError(Problem("variants", f"{found} {variant.folder}", "names that differ more"))
    variants = one_of_equals(study, variants)
    sources = {variant.full_name: source_files(variant) for variant in variants}
    return [
        Trial(
            name=f"{variant.folder}-seed{seed}",
            number=next(order),
            variant=variant.name,
            point=variant.shown,
            levels=dict(variant.levels),
            stage=stage,
            setting=" ".join(variant.setting),
            hyperparameters=freeze(variant.hyperparameters),
            rung=variant.rung,
            seed=seed,
            patches=variant.patches,
            spec=variant.spec.document(),
            training=variant.training,
            data=fingerprint(contents.digests),
            weights=freeze(variant.weights),
            carried=variant.carried,
            sources=sources[variant.full_name],
            match=variant.match,
            also=variant.also,
            remarks=variant.remarks,
            costs=freeze(variant.costs),
        )
        for stage, seed in study.stages
        for variant in variants
    ]


def source_files(variant: Variant) -> tuple[SourceFile, ...]:
    """The records of a variant's weight files. Each file is read once in a process, unless it changes."""
    for name, path in variant.files.items():
        known = READ.get((name, path))
        READ[name, path] = SourceFile.of(name, path, [] if known is None else [known])
    return tuple(READ[each] for each in variant.files.items())


READ: dict[tuple[str, Path], SourceFile] = {}
"""The weight files that this process has read."""


def check_variant(variant: Variant, contents: StudyContents) -> Lengths:
    """Check that the model can be trained on the data; the data's longest source and target, in tokens."""
    if problems := [*check_spec(variant.spec), *check_trained(variant.training, variant.spec)]:
        raise SpecError(problems)
    check_device(variant.training.device)
    examples = contents.open(variant.spec)
    if problems := list(check_lengths(examples, variant.training.batch)):
        raise SpecError(problems)
    try:
        costs(variant.spec, examples.lengths, variant.training.dtype)
    except PairformError:
        raise
    except Exception as error:  # whatever a block raises for lengths that it does not support
        source, target = lengths_read(variant.spec, examples.lengths)
        found = f"{type(error).__name__}: {error}"
        raise SpecError(Problem("", found, f"a model that takes {source} and {target} tokens")) from None
    if problems := list(check(contents.measures, variant.spec, variant.training)):
        raise SpecError(problems)
    return examples.lengths


def check_trained(training: TrainingSpec, spec: ModelSpec) -> Iterator[Problem]:
    """Phases and frozen parameters that do not fit the model or the training."""
    for problem in check_phases(training.phases, training.frozen, list(parameters_of(spec))):
        yield problem.inside("training")
    if (steps := sum(phase.steps for phase in training.phases)) > training.steps:
        yield Problem("training.phases", f"{steps:,} steps", f"at most training.steps, {training.steps:,}")


def check_device(name: str) -> None:
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError):
        raise SpecError(Problem("training.device", repr(name), "a device that torch can use here")) from None
