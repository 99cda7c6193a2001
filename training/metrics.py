"""Where a trial's metrics go: lines of JSON, and TensorBoard on request."""

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TextIO

from pairform.registry import InputError, Problem, writing

Log = Callable[[dict[str, Any]], None]
METRICS = "metrics.jsonl"
TENSORBOARD = "tensorboard"


def check_package(name: str, needed_by: str) -> None:
    """An optional package that is not there is an error that names the extra."""
    if find_spec(name) is None:
        raise InputError(Problem(needed_by, f"no package {name}", "it", "`pip install pairform[study]` brings it."))


def open_new(path: Path) -> TextIO:
    """A new file in the place of whatever has the name; each line is whole in the file once it is written."""
    path.unlink(missing_ok=True)
    return path.open("x", encoding="utf-8", buffering=1)


@contextlib.contextmanager
def open_log(folder: Path, tensorboard: bool) -> Iterator[Log]:
    """A log that is begun anew. Each line is whole in the file once it is written."""
    shutil.rmtree(folder / TENSORBOARD, ignore_errors=True)
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open_new(folder / METRICS))
        logs: list[Log] = [lambda line: print(json.dumps(line), file=file)]
        if tensorboard:
            logs.append(stack.enter_context(scalars(folder / TENSORBOARD)))

        def log(line: dict[str, Any]) -> None:
            with writing(folder / METRICS):
                for each in logs:
                    each(line)

        yield log


@contextlib.contextmanager
def scalars(folder: Path) -> Iterator[Log]:
    """Each number of a line as a scalar at its step, such as `train/loss`."""
    from tensorboardX import SummaryWriter

    with SummaryWriter(str(folder)) as writer:

        def log(line: dict[str, Any]) -> None:
            for name, value in line.items():
                if name not in ("step", "split"):
                    writer.add_scalar(f"{line['split']}/{name}", value, line["step"])

        yield log
