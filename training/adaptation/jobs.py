"""Runs as jobs: on a cluster, a job that reaches its time limit writes a checkpoint, is requeued, and resumes."""

import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pairform.assemblies.modeling.processes import PeerError
from pairform.registry import InputError, Problem, output_path
from pairform.registry.run_folders import check_links, lock, write_json
from pairform.training.adaptation.checking import check_run
from pairform.training.adaptation.interruption import Signals
from pairform.training.adaptation.recipe import Recipe, read_recipe
from pairform.training.adaptation.run import InterruptedRunError, adapt
from pairform.training.adaptation.run_folder import JOB, LOCK, RECIPE, check_resumes
from pairform.training.cluster import Cluster, Submitter


@dataclass(frozen=True)
class RunJob:
    """What each process of a job does. It is one of the run's processes, as torchrun would start it.

    recipe: the document that was submitted, whatever has become of its file since.
    source: folder to which the data's path is relative.
    out:    folder of the run.
    """

    recipe: Mapping[str, Any]
    source: Path
    out: Path

    def __call__(self) -> None:
        """Train until the run is done, or until the job's time is up: then submitit requeues the job.

        Slurm sends SIGTERM to a job that it preempts, and to one that the user cancels. It then kills the job, and only Slurm
        knows whether to requeue it. So the run writes a checkpoint and goes on.
        """
        from submitit import JobEnvironment
        from submitit.helpers import TorchDistributedEnvironment

        processes = TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
        if processes.world_size > 1 and "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(1)  # as under torchrun
        time_is_up = signal.Signals[f"SIG{JobEnvironment.USR_SIG}"]
        try:
            adapt(self.recipe, self.out, source=self.source, signals=Signals((time_is_up,), (signal.SIGTERM,)))
        except InterruptedRunError:
            signal.raise_signal(time_is_up)  # now to submitit, whose handler requeues the job
        except PeerError:  # the process that failed reports it
            raise SystemExit(1) from None

    def checkpoint(self) -> Any:
        """What submitit runs when the job starts again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def submit(
    recipe: Recipe | Mapping[str, Any] | str | Path,
    out: str | Path,
    cluster: Cluster,
    settings: Mapping[str, Any],
    *,
    source: str | Path | None = None,
) -> Any:
    """Submit a run as a job, and return at once. The job's processes train it together.

    Args:
        recipe, out, source: As those of `adapt`.
        cluster: `slurm`, or `local` for submitit's executor on this machine.
        settings: Slurm settings. The run has `nodes` times `tasks_per_node` processes, by default one for each of
            `gpus_per_node`. Slurm needs `time`.

    Returns:
        submitit's job, with a `job_id`.

    Raises:
        PairformError: before anything is written, if the recipe or a setting cannot be used.
    """
    if "RANK" in os.environ:
        raise InputError(Problem("environment", "RANK, as in a process of torchrun", "one process", "Run it without torchrun."))
    if cluster == "slurm" and "time" not in settings:
        remedy = "As in --slurm time=1440. A run that takes longer is requeued, and resumes."
        raise InputError(Problem("slurm.time", "no time limit", "minutes", remedy))
    read, place = read_recipe(recipe)
    folder, place = output_path(out).absolute(), (place if source is None else Path(source)).absolute()
    gpus = str(settings.get("gpus_per_node", "")).rpartition(":")[2]  # 8 of 8 and of a100:8
    if gpus.isdecimal() and not {"tasks_per_node", "ntasks_per_node"} & settings.keys():
        settings = {**settings, "tasks_per_node": int(gpus)}
    submitter = Submitter(folder, settings, cluster)
    check_run(read, place, folder, submitter.tasks)
    folder.mkdir(parents=True, exist_ok=True)
    check_links(folder)
    with lock(folder / LOCK, wait=False):
        check_resumes(folder, read)
        write_json(folder / RECIPE, read.document())
    job = submitter.submit(RunJob(read.document(), place, folder))
    write_json(folder / JOB, {"cluster": cluster, "id": job.job_id, "logs": str(job.paths.folder)})
    return job
