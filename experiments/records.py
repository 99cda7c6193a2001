"""A study's folder: what is written about each trial, so that a reader never sees half of it.

study.json, environment.json
data.json                    the SHA-256 of each file of the data
trials/<name>/trial.json     what the trial is, and how far it is
trials/<name>/metrics.jsonl  one object a line, as it is trained
trials/<name>/result.json    what was measured at its end
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from pairform.experiments.study_spec import TrainingSpec
from pairform.registry import OutputError, Patch, Problem, Spec, read_json

STUDY, ENVIRONMENT, DATA, TRIALS = "study.json", "environment.json", "data.json", "trials"
TRIAL, METRICS, RESULT = "trial.json", "metrics.jsonl", "result.json"
Status = Literal["planned", "running", "done", "failed"]


class Match(Spec):
    """What a variant was made as large as, and how large it is."""

    by: Literal["parameters", "flops"]
    wanted: int
    found: int

    @property
    def difference(self) -> float:
        """As a part of what was wanted."""
        return self.found / self.wanted - 1


class Trial(Spec):
    """One model, one seed.

    number:   its place in the order in which trials are run.
    variant:  its name, with the grid's values where there is a grid.
    patches:  what was applied to the base, in order.
    spec:     the model's, expanded.
    data:     the fingerprint of the files that it learns from.
    match:    how near it is to the variant that it was made as large as; the last patch did that.
    attempts: how often it was begun; more than once where a run was killed.
    """

    name: str
    number: Annotated[int, Field(ge=0)]
    variant: str
    seed: Annotated[int, Field(ge=0)]
    patches: tuple[Patch, ...]
    spec: Patch
    training: TrainingSpec
    data: str = ""
    match: Match | None = None
    status: Status = "planned"
    error: str | None = None
    attempts: int = 0

    @property
    def plan(self) -> dict[str, Any]:
        """What was decided before it was begun."""
        return self.model_dump(mode="json", exclude={"number", "status", "error", "attempts"})

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
        return Trial.model_validate_json((self.path / TRIAL).read_text("utf-8"), strict=False)

    def write(self, trial: Trial) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.path / TRIAL, trial.model_dump(mode="json"))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Wait until nobody else works on this trial. The system frees the lock of a process that ends in any way."""
        with lock(self.path / ".lock", wait=True):
            yield


def trials_of(study: Path) -> list[Trial]:
    """Every trial that was planned in a folder, by name."""
    if not (study / STUDY).is_file():
        raise OutputError(Problem(str(study), f"no {STUDY}", "the folder of a study"))
    return [TrialFolder(study, path.parent.name).read() for path in sorted((study / TRIALS).glob(f"*/{TRIAL}"))]


def result_of(study: Path, name: str) -> dict[str, Any]:
    return read_json(study / TRIALS / name / RESULT)


def write_json(path: Path, document: object) -> None:
    write_text(path, json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write whole or not at all: under another name first."""
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        partial.write_text(text, "utf-8")
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def lock(path: Path, *, wait: bool) -> Iterator[None]:
    """Hold a file's lock; without `wait`, one that another process holds is an error."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(Problem(str(path.parent), "another run at work in it", "a study that nobody runs now")) from None
        yield
