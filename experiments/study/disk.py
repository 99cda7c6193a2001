"""The disk space that the trials of a study need."""

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from pairform.assemblies.checkpoints.writing.folder import check_space
from pairform.assemblies.modeling.build import parameters_of
from pairform.assemblies.specs.model import ModelSpec
from pairform.experiments.results.records import TRIALS, Trial
from pairform.registry import thaw

BYTES = 20_000
"""Upper bound of the size of a trial's files, apart from its metrics."""
KEPT = 2
"""Checkpoints of a trial at a time, while the earlier one is replaced."""
LINE = 300
"""Upper bound of the bytes of a line of metrics."""


def check_room(out: Path, trials: list[Trial], jobs: int) -> None:
    """Check that the disk has space for the trials' files."""
    check_space(out.absolute() / TRIALS, room(trials, jobs), f"for {len(trials)} trials")


def room(trials: list[Trial], jobs: int) -> int:
    """Upper bound of the bytes of the trials' files, `jobs` trials with checkpoints at a time."""
    needed = sum(
        BYTES + len(str(trial.spec)) + LINE * 2 * (1 + trial.training.steps // trial.training.log_every) for trial in trials
    )
    largest = max(
        (checkpoint_bytes(spec) for spec in {trial.spec for trial in trials if trial.training.checkpoint_every}), default=0
    )
    return needed + KEPT * min(jobs, len(trials)) * largest


def checkpoint_bytes(spec: Mapping[str, Any]) -> int:
    """Upper bound of the size of a checkpoint: parameters and two moments of each, in float32."""
    return 3 * 4 * sum(prod(parameter.shape) for parameter in parameters_of(ModelSpec.read(thaw(spec))).values())
