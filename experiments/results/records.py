"""A study's folder: what is written about each trial, so that a reader never sees half of it.

study.json, environment.json
data.json                    the SHA-256 of each file of the data
trials/<name>/trial.json     what the trial is, and how far it is
trials/<name>/metrics.jsonl  one object a line, as it is trained
trials/<name>/result.json    what was measured at its end
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, Strict

from pairform.experiments.results.writing import held, lock, write_json
from pairform.registry import OutputError, Patch, Problem, Spec, SpecError, read_json, shorten
from pairform.training.recipe import TrainingSpec

STUDY, ENVIRONMENT, DATA, TRIALS = "study.json", "environment.json", "data.json", "trials"
TRIAL, RESULT, LOCK = "trial.json", "result.json", ".lock"
LARGEST = 1e100
"""No loss, count or time comes near it, and the squares of numbers below it are floats."""
Status = Literal["planned", "running", "interrupted", "done", "failed"]
"""`interrupted` is not written: it is what a reader finds where a trial was begun and no process works on it."""


class Match(Spec):
    """The size that a variant was scaled towards, and the size that it has."""

    by: Literal["parameters", "flops"] = Field(description="Size compared.")
    wanted: Annotated[int, Field(gt=0)] = Field(description="Size of the first variant.")
    found: int = Field(description="Size of this variant.")
    tolerance: float | None = Field(default=None, description="Largest difference that the study allows, as a fraction.")

    @property
    def difference(self) -> float:
        """As a part of what was wanted."""
        return self.found / self.wanted - 1


class Trial(Spec):
    """One model, one seed."""

    name: str = Field(description="Name of its folder.")
    number: Annotated[int, Field(ge=0)] = Field(description="Position in the order in which trials run.")
    variant: str = Field(description="Name of the variant, with the grid's values if there is a grid.")
    point: str = Field(default="", description="The grid's values alone.")
    seed: Annotated[int, Field(ge=0)] = Field(description="Seed of weights and data order.")
    patches: Annotated[tuple[Patch, ...], Strict(False)] = Field(description="Patches applied to the base, in order.")
    spec: Patch = Field(description="The model's spec, expanded.")
    training: TrainingSpec = Field(description="How it is trained.")
    data: str = Field(default="", description="Fingerprint of the files that it learns from.")
    match: Match | None = Field(
        default=None,
        description="How close its size is to the first variant's, in a study that scales variants; the last patch did that.",
    )
    status: Status = Field(default="planned", description="Progress.")
    error: str | None = Field(default=None, description="Message of a failed trial.")
    attempts: int = Field(default=0, description="How often it was started: more than once if a run was interrupted.")

    @property
    def plan(self) -> dict[str, Any]:
        """What was decided before it was begun."""
        left_out: dict[str, Any] = {
            "number": True,
            "point": True,
            "status": True,
            "error": True,
            "attempts": True,
            "match": {"tolerance"},
        }
        return self.model_dump(mode="json", exclude=left_out)

    def at(self, status: Status, error: str | None = None, attempts: int = 0) -> "Trial":
        """The same trial, further on."""
        return self.model_copy(update={"status": status, "error": error, "attempts": self.attempts + attempts})


class TrialFolder:
    """Where a trial is written."""

    def __init__(self, study: Path, name: str) -> None:
        self.path = study / TRIALS / name

    @property
    def there(self) -> bool:
        """Whether the trial was planned."""
        return (self.path / TRIAL).is_file()

    def read(self) -> Trial:
        file = self.path / TRIAL
        trial = Trial.read(read_json(file), where=str(file))
        if trial.name != self.path.name:
            raise SpecError(Problem(str(file), f"the name {shorten(trial.name)}", f"its folder's: {self.path.name}"))
        return trial

    def seen(self) -> Trial:
        """The trial as a reader finds it: one that was begun is `interrupted` where no process holds its lock."""
        trial = self.read()
        if trial.status == "running" and not held(self.path / LOCK):
            trial = self.read()  # it may have ended meanwhile
            return trial.at("interrupted") if trial.status == "running" else trial
        return trial

    def write(self, trial: Trial) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.path / TRIAL, trial.model_dump(mode="json"))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Wait until nobody else works on this trial. The system frees the lock of a process that ends in any way."""
        with lock(self.path / LOCK, wait=True):
            yield


def trials_of(study: Path) -> list[Trial]:
    """Every trial that was planned in a folder, by name."""
    if not (study / STUDY).is_file():
        raise OutputError(Problem(str(study), f"no {STUDY}", "the folder of a study"))
    return [TrialFolder(study, path.parent.name).seen() for path in sorted((study / TRIALS).glob(f"*/{TRIAL}"))]


def result_of(study: Path, name: str) -> dict[str, Any]:
    """What a trial measured: numbers by name, None for what could not be measured."""
    file = study / TRIALS / name / RESULT
    result = read_json(file)
    for key, value in result.items():
        if value is not None and not measurable(value):
            raise SpecError(Problem(f"{file}: {key}", shorten(value), f"a number of at most {LARGEST:g} in size"))
    return result


def measurable(value: object) -> bool:
    """Whether a value is a number that means and intervals can be computed of."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST


def first_variant(study: Path) -> str | None:
    """The name of the variant that the others are compared with."""
    variants = read_json(study / STUDY).get("variants")
    return next(iter(variants), None) if isinstance(variants, dict) else None
