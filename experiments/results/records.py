"""The records in a study's folder. Files are replaced whole, and locks are freed when their process ends in any way.

study.json, environment.json
data.json                    the SHA-256 of each file of the data
trials/<name>/trial.json     what the trial is, and how far it is
trials/<name>/metrics.jsonl  one object a line, as it is trained
trials/<name>/result.json    what was measured at its end
"""

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, Strict

from pairform.registry import (
    PARTIAL,
    OutputError,
    Patch,
    Problem,
    Spec,
    SpecError,
    read_json,
    replace_text,
    shorten,
    writing,
)
from pairform.training.recipe import TrainingSpec

STUDY, ENVIRONMENT, DATA, TRIALS = "study.json", "environment.json", "data.json", "trials"
TRIAL, RESULT, LOCK = "trial.json", "result.json", ".lock"
LARGEST = 1e100
"""Far above any loss, count or time; squares of smaller numbers are finite floats."""
Status = Literal["planned", "running", "interrupted", "done", "failed"]
"""`interrupted` is never written: a reader finds it for a trial that was started and that no process is running."""
OPENED = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Match(Spec):
    """The size that a variant was scaled towards, and the size that it has."""

    by: Literal["parameters", "flops"] = Field(description="Size compared.")
    wanted: Annotated[int, Field(gt=0)] = Field(description="Size of the first variant.")
    found: int = Field(description="Size of this variant.")
    tolerance: float | None = Field(default=None, description="Largest difference that the study allows, as a fraction.")

    @property
    def difference(self) -> float:
        """Relative difference from the wanted size."""
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
        """What was decided before it started."""
        progress: dict[str, Any] = dict.fromkeys(("number", "point", "status", "error", "attempts"), True)
        return self.model_dump(mode="json", exclude=progress | {"match": {"tolerance"}})

    def at(self, status: Status, error: str | None = None, attempts: int = 0) -> "Trial":
        """The same trial with another status."""
        return self.model_copy(update={"status": status, "error": error, "attempts": self.attempts + attempts})


class TrialFolder:
    """The folder of one trial."""

    def __init__(self, study: Path, name: str) -> None:
        self.path = study / TRIALS / name

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
    """A trial's results: numbers by name, None for what could not be measured."""
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
    """Name of the variant that the others are compared with."""
    variants = read_json(study / STUDY).get("variants")
    return next(iter(variants), None) if isinstance(variants, dict) else None


def write_json(path: Path, document: object) -> None:
    replace_text(path, json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def remove_partials(folder: Path) -> None:
    """Remove the partial files of killed writers. No other process may be writing to the folder."""
    for file in folder.glob(f".*{PARTIAL}*"):
        file.unlink(missing_ok=True)


@contextlib.contextmanager
def lock(path: Path, *, wait: bool) -> Iterator[None]:
    """Hold a file's lock. Without `wait`, `OutputError` if another process holds it. Nothing is written to the file."""
    with writing(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | OPENED, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise OutputError(Problem(str(path.parent), "another run in progress", "a study that is not running")) from None
    finally:
        os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Whether a process holds a file's lock."""
    try:
        descriptor = os.open(path, os.O_RDONLY | OPENED)
    except OSError:
        return False
    try:
        # a shared lock fails if a process holds the exclusive one, and does not disturb other readers
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno == errno.EWOULDBLOCK
    finally:
        os.close(descriptor)
    return False


def check_links(study: Path, levels: int = 3) -> None:
    """Raise `OutputError` for a symbolic link where a run writes: in the study's folder, its trials' folder and theirs."""
    if not study.is_dir():
        return
    for item in os.scandir(study):
        if item.is_symlink():
            remedy = "Remove the link: a run would write to its target."
            raise OutputError(Problem(item.path, "a symbolic link", "a file or folder inside the study's folder", remedy))
        if levels > 1 and item.is_dir(follow_symlinks=False):
            check_links(Path(item.path), levels - 1)
