"""Where the metrics of a trial go."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from pairform.experiments.results.records import Trial
from pairform.training.adaptation.run_folder import cut_lines, lines
from pairform.training.metrics import METRICS, Log, open_log
from pairform.training.wandb_log import wandb_log


@contextlib.contextmanager
def trial_log(folder: Path, trial: Trial, begin: int, tensorboard: bool, project: str | None) -> Iterator[Log]:
    """The log of a trial, from step `begin` on.

    folder:      of the trial.
    tensorboard: whether to log for TensorBoard too.
    project:     on Weights & Biases, where a run with the trial's name gets the same numbers; None: none.

    Raises:
        InputError: Weights & Biases does not open the run.
    """
    file = folder / METRICS
    reached = (
        0 if project is None else max((step for line in lines(file) if isinstance(step := line.get("step"), int)), default=0)
    )
    if begin:
        cut_lines(file, begin)
    with contextlib.ExitStack() as stack:
        others: list[Log] = []
        if project is not None:
            config = {
                "variant": trial.variant,
                "seed": trial.seed,
                "levels": dict(trial.levels),
                "training": trial.training.document(),
            }
            kept = lines(file) if begin else ()
            others.append(stack.enter_context(wandb_log(folder, project, trial.name, config, kept, reached)))
        yield stack.enter_context(open_log(folder, tensorboard, begin, others))
