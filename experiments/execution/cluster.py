"""Trials as Slurm jobs, submitted with submitit. Its local executor runs the same jobs on this machine."""

import functools
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pairform.experiments.execution.processes import isolated
from pairform.experiments.execution.worker import Work, run_trial
from pairform.registry import InputError, Problem

FOLDER = "jobs"
"""Folder of submitit's files in the study's folder. Each run gets a new one there, since submitit unpickles what it finds."""
PAUSE = 0.2
"""Seconds between polls of the jobs."""


class Jobs:
    """Runs trials as jobs. The study's folder and its data must have the same path on every node.

    Args:
        work: What the trials run on.
        settings: Slurm settings such as `partition`, `time` (minutes), `gpus_per_node`: submitit's `slurm_...` parameters.
        cluster: `slurm`, or `local` for submitit's executor on this machine.

    Raises:
        InputError: there is no Slurm here, or submitit does not know a setting.
    """

    def __init__(self, work: Work, settings: Mapping[str, Any], cluster: Literal["slurm", "local"]) -> None:
        if cluster == "slurm" and shutil.which("srun") is None:
            remedy = "Run it where jobs can be submitted, or without --executor."
            raise InputError(Problem("executor slurm", "no command srun", "a machine of a Slurm cluster", remedy))
        self.work = work
        self.make = functools.partial(submitit_executor, {f"slurm_{name}": value for name, value in settings.items()}, cluster)
        with tempfile.TemporaryDirectory() as folder:  # submitit creates its folder at once, ours comes after all checks
            self.make(Path(folder))
        self.running: dict[str, Any] = {}

    @functools.cached_property
    def executor(self) -> Any:
        folder = self.work.study / FOLDER
        folder.mkdir(exist_ok=True)
        return self.make(Path(tempfile.mkdtemp(dir=folder, prefix=time.strftime("%Y%m%d-%H%M%S-"))))

    def start(self, name: str) -> None:
        with isolated():
            self.running[name] = self.executor.submit(run_trial, self.work, name)

    def wait(self) -> list[tuple[str, str]]:
        while not (ended := [name for name, job in self.running.items() if job.done()]):
            time.sleep(PAUSE)
        return [(name, outcome(self.running.pop(name))) for name in ended]

    def stop(self) -> None:
        for job in self.running.values():
            job.cancel()


def submitit_executor(settings: Mapping[str, Any], cluster: str, folder: Path) -> Any:
    """submitit's executor; unknown settings raise `InputError`."""
    import submitit

    executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
    try:
        executor.update_parameters(name="pairform", **settings)
    except (NameError, ValueError, TypeError, AssertionError) as error:
        raise InputError(Problem("slurm", str(error), "settings that submitit knows")) from None
    return executor


def outcome(job: Any) -> str:
    """How a job ended."""
    error = job.exception()
    return f"The trial's job {job.job_id} was ended, state {job.state}." + (f" {error}" if error else "")
