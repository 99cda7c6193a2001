"""Trials as Slurm jobs."""

import time
from collections.abc import Mapping
from typing import Any

from pairform.experiments.execution.worker import Work, run_trial
from pairform.training.cluster import PAUSE, Cluster, Submitter


class Jobs:
    """Runs trials as jobs. The study's folder and its data must have the same path on every node.

    Args:
        work: What the trials run on.
        settings: Slurm settings such as `partition`, `time`, `gpus_per_node`: submitit's `slurm_...` parameters.
        cluster: `slurm`, or `local` for submitit's executor on this machine.

    Raises:
        InputError: there is no Slurm here, or submitit does not know a setting.
    """

    def __init__(self, work: Work, settings: Mapping[str, Any], cluster: Cluster) -> None:
        self.work = work
        self.submitter = Submitter(work.study, settings, cluster)
        self.running: dict[str, Any] = {}

    def start(self, name: str) -> None:
        self.running[name] = self.submitter.submit(run_trial, self.work, name)

    def wait(self, seconds: float) -> list[tuple[str, str]]:
        end = time.monotonic() + seconds
        while not (ended := [name for name, job in self.running.items() if job.done()]) and time.monotonic() < end:
            time.sleep(min(PAUSE, seconds))
        return [(name, outcome(self.running.pop(name))) for name in ended]

    def stop(self) -> None:
        for job in self.running.values():
            job.cancel()


def outcome(job: Any) -> str:
    """How a job ended."""
    error = job.exception()
    return f"The trial's job {job.job_id} was ended, state {job.state}." + (f" {error}" if error else "")
