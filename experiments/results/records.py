"""The records in a study's folder. Files are replaced whole, and locks are freed when their process ends in any way.

study.json, environment.json
data.json                    the SHA-256 of each file of the data and of the measures
stop.json                    a request that the run end
trials/<name>/trial.json     what the trial is, and how far it is
trials/<name>/metrics.jsonl  one object a line, as it is trained
trials/<name>/checkpoints    what it resumes from, until it is done
trials/<name>/result.json    what was measured at its end
"""

import contextlib
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, Strict

from pairform.experiments.results.matched_size import Match
from pairform.registry import CheckpointError, OutputError, Patch, Problem, Spec, SpecError, open_regular, read_json, shorten
from pairform.registry.run_folders import is_locked, lock, write_json
from pairform.training.settings import TrainingSpec

STUDY, ENVIRONMENT, DATA, STOP, TRIALS = "study.json", "environment.json", "data.json", "stop.json", "trials"
TRIAL, RESULT, LOCK, CHECKPOINTS = "trial.json", "result.json", ".lock", "checkpoints"
MEASURED = "measures: "
"""Before the names of the measures' files in `data.json`."""
NEW = "new"
"""The weights of a model that is newly initialised."""
Weights: TypeAlias = str | Mapping[str, Any]
"""NEW, a checkpoint's folder or hub id, or `{"convert": {...}}`."""
LARGEST = 1e100
"""Far above any loss, count or time; squares of smaller numbers are finite floats."""
Status = Literal["planned", "running", "interrupted", "done", "failed"]
"""`interrupted` is never written: a reader finds it for a trial that was started and that no process is running."""


Stage = Literal["sweep", "retrain"] | None
"""Of a study that tunes its variants: the trials that choose a setting, and those that are compared."""


class Carried(Spec):
    """How much of a model comes from checkpoints."""

    tensors: int = Field(description="Tensors that are copied or derived from those of a checkpoint.")
    parameters: int = Field(description="Number of parameters in those tensors.")
    new_tensors: int = Field(description="Tensors that are newly initialised.")
    new_parameters: int = Field(description="Number of parameters in the newly initialised tensors.")


class SourceFile(Spec):
    """A weight file that a trial starts from."""

    name: str = Field(description="Name of the checkpoint in the study, and of the file.")
    sha256: str = Field(description="SHA-256 of its contents.")
    bytes: int = Field(description="Size.")
    modified: int = Field(description="Time of its last modification, in nanoseconds.")

    @classmethod
    def of(cls, name: str, path: Path, known: Sequence["SourceFile"] = ()) -> "SourceFile":
        """The record of a file. Its contents are not read if one in `known` has its name, size and time.

        Raises:
            CheckpointError: it cannot be read.
        """
        try:
            with open_regular(path) as file:
                status = os.fstat(file.fileno())
                stamp = (name, status.st_size, status.st_mtime_ns)
                for each in known:
                    if stamp == (each.name, each.bytes, each.modified):
                        return each
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise CheckpointError(Problem(str(path), error.strerror or str(error), "a file that can be read")) from None
        return cls(name=name, sha256=digest, bytes=status.st_size, modified=status.st_mtime_ns)


class Trial(Spec):
    """One model, one seed."""

    name: str = Field(description="Name of its folder.")
    number: Annotated[int, Field(ge=0)] = Field(description="Position in the order in which trials run.")
    variant: str = Field(description="Name of the variant, with the grid's values if there is a grid.")
    point: str = Field(default="", description="The grid's values alone.")
    levels: dict[str, str] = Field(default_factory=dict, description="Level of each factor of the study.")
    stage: Stage = Field(
        default=None, description="In a study that tunes: the sweep that chooses a setting, or the training that is compared."
    )
    setting: str = Field(default="", description="The tuned values, as in `learning_rate=0.001`.")
    hyperparameters: Patch = Field(default={}, description="The tuned values by path.")
    rung: str = Field(default="", description="Name of its size on the study's ladder.")
    seed: Annotated[int, Field(ge=0)] = Field(description="Seed of weights and data order.")
    patches: Annotated[tuple[Patch, ...], Strict(False)] = Field(description="Patches applied to the base, in order.")
    spec: Patch = Field(description="The model's spec, expanded.")
    training: TrainingSpec = Field(description="How it is trained.")
    data: str = Field(default="", description="Fingerprint of the files that it learns from.")
    weights: str | Patch = Field(default=NEW, description="Where its weights come from, as in the study.")
    carried: Carried | None = Field(default=None, description="What its weights have in common with their source.")
    sources: Annotated[tuple[SourceFile, ...], Strict(False)] = Field(default=(), description="Weight files of the source.")
    match: Match | None = Field(
        default=None,
        description="How close its size is to the first variant's, in a study that scales variants; the last patch did that.",
    )
    also: Annotated[tuple[str, ...], Strict(False)] = Field(
        default=(), description="Other variants with the same model, training and weights. They have no trials of their own."
    )
    remarks: Annotated[tuple[str, ...], Strict(False)] = Field(
        default=(), description="What is probably not meant in the variant, as sentences about it."
    )
    costs: Patch = Field(default={}, description="Parameters, FLOPs and cache bytes at the longest lengths of the data.")
    status: Status = Field(default="planned", description="Progress.")
    error: str | None = Field(default=None, description="Message of a failed trial.")
    attempts: int = Field(default=0, description="How often it was started: more than once if a run was interrupted.")

    @property
    def plan(self) -> dict[str, Any]:
        """What was decided before it started."""
        names = ("number", "point", "also", "remarks", "costs", "status", "error", "attempts")
        progress: dict[str, Any] = dict.fromkeys(names, True)
        progress |= {"match": {"tolerance", "changed"}, "training": {"checkpoint_every"}, "sources": {"__all__": {"modified"}}}
        return self.model_dump(mode="json", exclude=progress)

    @property
    def arm(self) -> str:
        """Name of the study's variant, without the grid's values."""
        return self.variant.removesuffix(f" {self.point}")

    @property
    def variants(self) -> set[str]:
        """Names of the study's variants whose trial this is, without the grid's values."""
        return {name.removesuffix(f" {self.point}") for name in (self.variant, *self.also)}

    @property
    def digests(self) -> dict[str, str]:
        """The SHA-256 of each weight file that it starts from."""
        return {source.name: source.sha256 for source in self.sources}

    def at(self, status: Status, error: str | None = None, attempts: int = 0) -> "Trial":
        """The same trial with another status."""
        return self.model_copy(update={"status": status, "error": error, "attempts": self.attempts + attempts})


class TrialFolder:
    """The folder of one trial."""

    def __init__(self, study: Path, name: str) -> None:
        self.path = study / TRIALS / name

    @property
    def checkpoints(self) -> Path:
        """The folder of its checkpoints, which exist until it is done."""
        return self.path / CHECKPOINTS

    @property
    def exists(self) -> bool:
        """Whether the trial was planned."""
        return (self.path / TRIAL).is_file()

    def read(self) -> Trial:
        file = self.path / TRIAL
        trial = Trial.read(read_json(file), where=str(file))
        if trial.name != self.path.name:
            raise SpecError(Problem(str(file), f"the name {shorten(trial.name)}", f"its folder's: {self.path.name}"))
        return trial

    def observe(self) -> Trial:
        """The trial as a reader finds it: `interrupted` if it was started and no process holds its lock."""
        trial = self.read()
        if trial.status == "running" and not is_locked(self.path / LOCK):
            trial = self.read()  # it may have ended in between
            return trial.at("interrupted") if trial.status == "running" else trial
        return trial

    def write(self, trial: Trial) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.path / TRIAL, trial.model_dump(mode="json"))

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Wait until no other process runs this trial, and keep others out."""
        return lock(self.path / LOCK, wait=True)


def trials_of(study: Path) -> list[Trial]:
    """Every trial in a study's folder, by name; `OutputError` if there is no study."""
    if not (study / STUDY).is_file():
        raise OutputError(Problem(str(study), f"no {STUDY}", "the folder of a study"))
    return [TrialFolder(study, path.parent.name).observe() for path in sorted((study / TRIALS).glob(f"*/{TRIAL}"))]


def result_of(study: Path, name: str) -> dict[str, Any]:
    """A trial's results: numbers by name, None for what could not be measured; `SpecError` for anything else."""
    file = study / TRIALS / name / RESULT
    result = read_json(file)
    for key, value in result.items():
        if value is not None and not measurable(value):
            raise SpecError(Problem(f"{file}: {key}", shorten(value), f"a number of at most {LARGEST:g} in size"))
    return result


def measurable(value: object) -> bool:
    """Whether a value is a number whose mean and interval can be computed."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST


def first_variant(study: Path) -> str | None:
    """Name of the variant that the others are compared with; None if there is none."""
    if has_factors(study):  # the first combination, which is the first trial's
        first = min(trials_of(study), key=lambda trial: trial.number, default=None)
        return None if first is None else first.variant
    variants = read_json(study / STUDY).get("variants")
    return next(iter(variants), None) if isinstance(variants, dict) else None


def baselines(points: Mapping[str, str], first: str | None) -> dict[str, str]:
    """The variant that each is compared with: the first one at the same point of the grid, which is compared with itself."""
    return {name: f"{first} {point}".strip() for name, point in points.items()}


def has_factors(study: Path) -> bool:
    """Whether the study's variants are combinations of factors."""
    return bool(read_json(study / STUDY).get("factors"))
