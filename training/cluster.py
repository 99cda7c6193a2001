"""Slurm jobs, submitted with submitit. Its local executor runs the same jobs on this machine."""

import functools
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from pairform.registry import InputError, Problem, shorten, writing
from pairform.training.isolation import isolated
from pairform.training.metrics import check_package

Cluster = Literal["slurm", "local"]
EXECUTORS: Mapping[str, Cluster | None] = {"local": None, "slurm": "slurm", "submitit": "local"}
"""Executors and submitit's names for them: processes of this command, Slurm jobs, or jobs of submitit's local executor."""
FOLDER = "jobs"
"""Folder of submitit's files in a study or run. Each command gets a new one there, since submitit unpickles what it finds."""
PAUSE = 0.2
"""Seconds between polls of a job."""
COUNTS = {"nodes": "nodes", "ntasks_per_node": "tasks_per_node", "tasks_per_node": "tasks_per_node"}
"""Settings of which the number of processes is made, with submitit's names for them."""
DAY = 24 * 60
TIME = re.compile(r"(?:(\d{1,4})-)?(\d{1,7})(?::(\d{1,2}))?(?::(\d{1,2}))?", re.ASCII)
REQUEUES = 1000
"""How often a job that can resume is requeued at its time limit. It resumes from a checkpoint, so each start makes progress."""


def cluster_of(executor: str, settings: Mapping[str, Any]) -> Cluster | None:
    """The cluster to which an executor submits jobs; None for `local`, which submits none.

    Raises:
        InputError: there is no such executor, its package is missing, or `local` is given Slurm settings.
    """
    if executor not in EXECUTORS:
        raise InputError(Problem("executor", shorten(executor), " or ".join(EXECUTORS)))
    cluster = EXECUTORS[executor]
    if cluster is not None:
        check_package("submitit", f"executor {executor}")
    elif settings:
        remedy = "Leave out --slurm, or run with --executor slurm."
        raise InputError(Problem("slurm", ", ".join(settings), "no cluster settings for local processes", remedy))
    return cluster


class Submitter:
    """Submits jobs. Nothing is written before the first one.

    Args:
        folder: Of the study or run. It and the data must have the same path on every node.
        settings: Slurm settings such as `partition`, `time`, `gpus_per_node`: submitit's `slurm_...` parameters.
        cluster: `slurm`, or `local` for submitit's executor on this machine.

    Raises:
        InputError: there is no Slurm here, or submitit does not know a setting or its value.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], cluster: Cluster) -> None:
        if cluster == "slurm" and shutil.which("srun") is None:
            remedy = "Run it where jobs can be submitted, or without --executor."
            raise InputError(Problem("executor slurm", "no command srun", "a machine of a Slurm cluster", remedy))
        self.folder = folder
        chosen = parameters(settings, cluster)
        self.tasks: int = chosen.get("nodes", 1) * chosen.get("tasks_per_node", 1)
        """Processes of a job."""
        self.make = functools.partial(submitit_executor, chosen, cluster)
        with tempfile.TemporaryDirectory() as place:  # submitit creates its folder at once, ours comes after all checks
            self.make(Path(place))

    @functools.cached_property
    def executor(self) -> Any:
        folder = self.folder / FOLDER
        with writing(folder):
            folder.mkdir(exist_ok=True)
            own = tempfile.mkdtemp(dir=folder, prefix=time.strftime("%Y%m%d-%H%M%S-"))
        return self.make(Path(own))

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """submitit's job, which calls the function in each of its processes.

        Raises:
            InputError: Slurm does not accept the job.
        """
        try:
            with isolated():
                return self.executor.submit(function, *arguments)
        except RuntimeError as error:  # of submitit, with sbatch's message
            raise InputError(Problem("slurm", str(error), "settings that sbatch accepts")) from None


def parameters(settings: Mapping[str, Any], cluster: Cluster) -> dict[str, Any]:
    """Slurm settings as submitit's parameters. The local executor has only a time limit, processes and GPUs."""
    found: dict[str, Any] = {} if cluster == "slurm" else {"timeout_min": DAY}  # submitit's default is two minutes
    for name, value in settings.items():
        if name == "time":
            found["timeout_min"] = minutes(value)
        elif name in COUNTS:
            if type(value) is not int or value < 1:
                raise InputError(Problem(f"slurm.{name}", shorten(value), "a whole number, 1 or more"))
            found[COUNTS[name]] = value
        elif name == "gpus_per_node" and cluster == "local":
            found[name] = value
        else:
            found[f"slurm_{name}"] = value
    return found


def minutes(limit: Any) -> int:
    """A time limit in whole minutes, from a number of minutes or one of Slurm's forms, up to `days-hours:minutes:seconds`."""
    match = TIME.fullmatch(str(limit)) if type(limit) in (int, str) else None
    if match is not None:
        days, *rest = match.groups()
        numbers = [int(number) for number in rest if number is not None]
        if days is None and len(numbers) < 3:  # minutes, or minutes:seconds
            numbers.insert(0, 0)
        hours, whole, seconds = (*numbers, 0, 0)[:3]
        if total := ((int(days or 0) * 24 + hours) * 60 + whole) * 60 + seconds:
            return -(-total // 60)
    raise InputError(Problem("slurm.time", shorten(limit), "minutes, or Slurm's days-hours:minutes:seconds"))


def submitit_executor(settings: Mapping[str, Any], cluster: Cluster, folder: Path) -> Any:
    """submitit's executor; unknown settings raise `InputError`."""
    import submitit

    executor = submitit.AutoExecutor(
        folder=folder, cluster=cluster, slurm_max_num_timeout=REQUEUES, local_max_num_timeout=REQUEUES
    )
    try:
        executor.update_parameters(**{"name": "pairform", **settings})
    except (NameError, ValueError, TypeError, AssertionError) as error:
        raise InputError(Problem("slurm", str(error), "settings that submitit knows")) from None
    return executor


def wait(job: Any) -> None:
    """Wait until a job has ended, however it ended."""
    while not job.done():
        time.sleep(PAUSE)
