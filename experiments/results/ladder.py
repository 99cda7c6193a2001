"""The scaling laws of a study with a ladder, from the trials that are done."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pairform.experiments.results.records import STUDY, Trial, result_of
from pairform.experiments.results.summary import trials_by_variant
from pairform.experiments.statistics.iso_flops import IsoFlop, iso_flops
from pairform.experiments.statistics.scaling import LawFit, Multiplier, Observation, fit_law, multiplier
from pairform.registry import read_json

NEEDED = ("non_embedding_parameters", "training_tokens", "training_flops", "loss")
"""N, D, C and L in a trial's results."""


@dataclass(frozen=True)
class VariantLaw:
    """What the sizes of one variant show.

    observations: its trials that are done.
    law:          None if its sizes identify none.
    multiplier:   against the first variant; None for that one, and if the sizes identify no law.
    iso_flops:    for each amount of compute at which it has several sizes.
    """

    variant: str
    observations: tuple[Observation, ...]
    law: LawFit | None
    multiplier: Multiplier | None
    iso_flops: list[IsoFlop]


def has_ladder(study: Path) -> bool:
    """Whether the study's variants are run at several sizes."""
    return bool(read_json(study / STUDY).get("ladder"))


def ladder_results(study: Path) -> list[VariantLaw]:
    """The scaling laws of each variant, the first one first; empty for a study without a ladder, or while no trial is done."""
    if not has_ladder(study):
        return []
    groups: dict[str, list[Observation]] = {}
    for trial in itertools.chain.from_iterable(trials_by_variant(study).values()):
        own = groups.setdefault(trial.arm, [])
        if trial.status == "done" and (point := observation(trial, result_of(study, trial.name))) is not None:
            own.append(point)
    first = next(iter(groups.values()), [])
    return [
        VariantLaw(
            name,
            tuple(own),
            fit_law(own),
            None if own is first else multiplier(first, own),
            iso_flops(own),
        )
        for name, own in groups.items()
        if own
    ]


def observation(trial: Trial, result: Mapping[str, Any]) -> Observation | None:
    """A trial's point on the ladder; None if something was not measured."""
    values = [result.get(name) for name in NEEDED]
    if not trial.rung or any(value is None or value <= 0 for value in values):
        return None
    return Observation(trial.point, trial.seed, *(float(value) for value in values if value is not None))
