"""Logging of metrics: JSON lines, and TensorBoard on request."""

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from math import isfinite
from pathlib import Path
from typing import Any, Literal

from pairform.registry import InputError, not_installed, writing

Log = Callable[[dict[str, Any]], None]
METRICS = "metrics.jsonl"
TENSORBOARD = "tensorboard"


def check_package(name: str, needed_by: str, extra: str | None = "study") -> None:
    """Raise `InputError` if an optional package is not installed.

    extra: the extra of pairform that installs it; None: there is none.
    """
    found = find_spec(name)
    if found is None or found.origin is None:  # a folder of that name is no package
        raise InputError(not_installed(needed_by, name, extra))


def scalars_of(line: dict[str, Any]) -> dict[str, float]:
    """The numbers of a line of metrics by tags such as `train/loss`."""
    prefix = "/".join(str(line[name]) for name in ("split", "objective") if name in line)
    return {f"{prefix}/{name}": value for name, value in line.items() if name != "step" and isinstance(value, int | float)}


@contextlib.contextmanager
def open_log(folder: Path, tensorboard: bool, begin: int = 0, others: Sequence[Log] = ()) -> Iterator[Log]:
    """The log of a trial or a run. Each line is flushed as it is written.

    begin:  step from which training resumes: earlier lines are kept. 0: a new log, in place of an earlier one.
    others: further logs that receive each line.
    """
    if not begin:
        shutil.rmtree(folder / TENSORBOARD, ignore_errors=True)
        (folder / METRICS).unlink(missing_ok=True)  # a link is replaced, not followed
    with contextlib.ExitStack() as stack:
        logs = [stack.enter_context(json_lines(folder / METRICS, "a" if begin else "x"))]
        if tensorboard:
            logs.append(stack.enter_context(tensorboard_log(folder / TENSORBOARD, begin)))
        logs.extend(others)

        def log(line: dict[str, Any]) -> None:
            with writing(folder / METRICS):
                for each in logs:
                    each(line)

        yield log


@contextlib.contextmanager
def json_lines(path: Path, mode: Literal["a", "x"]) -> Iterator[Log]:
    """A log of one JSON object a line. Numbers that are not finite, which JSON does not have, become null."""
    with writing(path):
        file = path.open(mode, encoding="utf-8", buffering=1)

    def log(line: dict[str, Any]) -> None:
        known = {name: None if isinstance(value, float) and not isfinite(value) else value for name, value in line.items()}
        print(json.dumps(known), file=file)

    try:
        yield log
    finally:
        with writing(path):  # a full disk is found again, with the rest of a line
            file.close()


@contextlib.contextmanager
def tensorboard_log(folder: Path, begin: int) -> Iterator[Log]:
    """A TensorBoard log: each number of a line is a scalar such as `train/loss` at its step."""
    from tensorboardX import SummaryWriter

    with SummaryWriter(str(folder), purge_step=begin + 1 if begin else None) as writer:

        def log(line: dict[str, Any]) -> None:
            for tag, value in scalars_of(line).items():
                writer.add_scalar(tag, value, line["step"])

        yield log
