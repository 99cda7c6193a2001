"""Metrics on Weights & Biases: one run there for each run's folder, with the lines of its metrics, whatever interrupts it."""

import contextlib
import re
import secrets
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pairform.registry import InputError, OutputError, Problem, read_json, shorten
from pairform.registry.run_folders import write_json
from pairform.training.metrics import Log, scalars_of

RECORD = "wandb.json"
"""The id of the run on Weights & Biases, in the run's folder."""
ID = re.compile(r"[a-z0-9]{1,64}")
SETTINGS = {"symlink": False, "finish_timeout": 60.0}
"""No links, which a run refuses in its folder; and no long wait for an upload: a job may end soon."""


@contextlib.contextmanager
def wandb_log(
    folder: Path, project: str, name: str | None, config: Mapping[str, Any], lines: Iterable[dict[str, Any]], reached: int
) -> Iterator[Log]:
    """A log that sends each number of a line, such as `train/loss`, to Weights & Biases, once for each step.

    Steps that were sent before an interruption and are made again have the same numbers, and are not sent again.

    Args:
        folder: Of the run.
        project, name: On Weights & Biases.
        config: Shown with the run there.
        lines: Those of the steps before this log; sent first where they are missing there.
        reached: The last step that an earlier log of this folder was given.

    Raises:
        InputError: Weights & Biases does not open the run, for example because nobody is logged in.
    """
    import wandb

    known = recorded_id(folder)
    identifier = known or secrets.token_hex(8)
    write_json(folder / RECORD, {"id": identifier})
    understood = getattr(wandb.Settings, "model_fields", SETTINGS)  # by the version that is installed
    try:
        run = wandb.init(
            project=project,
            name=name,
            id=identifier,
            resume="allow",
            config=dict(config),
            dir=str(folder),
            settings={setting: value for setting, value in SETTINGS.items() if setting in understood},
        )
    except Exception as error:
        remedy = "Run `wandb login`, set WANDB_MODE=offline, or leave out logging.wandb."
        found = f"{type(error).__name__}: {error}"
        raise InputError(Problem("logging.wandb", found, "a run on Weights & Biases", remedy)) from None
    if run.offline:  # nobody knows what was sent, but what was logged
        first = reached + 1 if known else 0
    else:
        first = run.step
    mirror = Mirror(run, first)
    try:
        for line in lines:
            mirror(line)
        yield mirror
    except BaseException:
        mirror.finish(1)
        raise
    mirror.finish(0)


class Mirror:
    """Logs lines from step `first` on. A failure of Weights & Biases ends this log with a warning, and not the training."""

    def __init__(self, run: Any, first: int) -> None:
        self.run = run
        self.first = first

    def __call__(self, line: dict[str, Any]) -> None:
        if self.run is not None and line["step"] >= self.first:
            with self.warned():
                self.run.log(scalars_of(line), step=line["step"])

    def finish(self, code: int) -> None:
        if self.run is not None:
            with self.warned():
                self.run.finish(exit_code=code)

    @contextlib.contextmanager
    def warned(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.run = None
            rest = "Metrics still go to metrics.jsonl, and a resumed run sends those that are missing."
            warnings.warn(f"Weights & Biases failed: {shorten(error)}. {rest}", stacklevel=3)


def recorded_id(folder: Path) -> str | None:
    """The id that an earlier log of a run's folder had."""
    file = folder / RECORD
    if not file.exists():
        return None
    found = read_json(file).get("id")
    if not isinstance(found, str) or not ID.fullmatch(found):
        raise OutputError(Problem(str(file), f"id {shorten(found)}", "at most 64 lower-case letters and digits"))
    return found
