"""Running the trials of a study, each in its own process. A later run resumes where an earlier one stopped."""

import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sized
from pathlib import Path
from typing import Any, Protocol

from pairform.experiments.execution.cluster import Jobs
from pairform.experiments.execution.earlier_run import check_folder
from pairform.experiments.execution.environment import environment
from pairform.experiments.execution.processes import Processes
from pairform.experiments.execution.progress import Progress, Report
from pairform.experiments.execution.rounds import rounds
from pairform.experiments.execution.stopping import PAUSE, Stop, requested, withdraw
from pairform.experiments.execution.worker import Work
from pairform.experiments.results.records import DATA, ENVIRONMENT, LOCK, STUDY, Trial, TrialFolder, trials_of
from pairform.experiments.study.contents import gather
from pairform.experiments.study.disk import check_room
from pairform.experiments.study.planning import plan_trials
from pairform.experiments.study.size_matching import known_matches
from pairform.experiments.study.spec import StudySpec
from pairform.experiments.study.tuning import most_trials
from pairform.registry import InputError, Problem, output_path, shorten, suggest
from pairform.registry.run_folders import check_links, lock, remove_partials, write_json
from pairform.training.adaptation.recipe_parts import WandbSpec
from pairform.training.cluster import cluster_of
from pairform.training.metrics import check_package


class Executor(Protocol):
    """Starts trials and waits for them."""

    @property
    def running(self) -> Sized:
        """The running trials."""
        ...

    def start(self, name: str) -> None: ...

    def wait(self, seconds: float) -> list[tuple[str, str]]:
        """Wait until a trial ends, at most so many seconds. Each ended trial's name, and how its process or job ended."""
        ...

    def stop(self) -> None:
        """Terminate all running trials."""
        ...


def run_study(
    study: StudySpec,
    out: Path,
    *,
    source: Path,
    jobs: int = 1,
    retry: bool = False,
    only: Collection[str] | None = None,
    executor: str = "local",
    cluster: Mapping[str, Any] | None = None,
    tensorboard: bool = False,
    wandb: str | None = None,
    command: list[str] | None = None,
    report: Report = lambda ended: None,
    announce: Callable[[list[Trial]], None] = lambda planned: None,
) -> list[Trial]:
    """Run every trial that is not done yet.

    A failing trial is recorded and does not stop the others. Numbers depend neither on `jobs` nor on interruptions. Trials end
    when the calling process ends, however it ends; jobs of a cluster go on.

    Args:
        study: The study, as `read_study` returns it.
        out: Folder of the study; an existing one of the same study is resumed.
        source: Folder to which the data's paths are relative.
        jobs: Largest number of trials that run at once.
        retry: Run trials again that failed in an earlier run.
        only: Names of variants: the trials of all others wait for a later run. Default: all variants.
        executor: local, slurm or submitit.
        cluster: Slurm settings such as `partition`.
        tensorboard: Also log metrics for TensorBoard, into each trial's folder.
        wandb: A project on Weights & Biases, to which metrics go too.
        command: The command line to record with the results.
        report: Called with each trial as it ends.
        announce: Called with the planned trials before the first one starts.

    Returns:
        All trials of the study, by name. Some are not done if the study's minutes are over or if the run was stopped.

    Raises:
        PairformError: before the first trial, if the study cannot be run or `out` holds another one.
    """
    if not isinstance(jobs, int) or isinstance(jobs, bool) or jobs < 1:
        raise InputError(Problem("jobs", shorten(jobs), "a whole number, 1 or more"))
    if tensorboard:
        check_package("tensorboardX", "tensorboard")
    if wandb is not None:
        WandbSpec.read({"project": wandb}, where="wandb")
        check_package("wandb", "wandb", None)
    out = output_path(out)
    work = Work(out, source.absolute(), tensorboard, wandb)
    backend = make_executor(executor, work, cluster or {})
    check_links(out)
    contents = gather(study, source)
    search = None
    if study.search is not None:
        check_package("optuna", "search")
        from pairform.experiments.study.search import Search

        search = Search(study, study.search, source, contents, out)
    planned = plan_trials(study, source, contents, known_matches(out, study)) if search is None else search.planned
    if only is not None:
        check_only(study, only)
    check_folder(out, study, planned, contents.digests)
    check_room(out, most_trials(planned, study.first) if search is None else search.most, jobs)
    # nothing is written until all checks have passed
    out.mkdir(parents=True, exist_ok=True)
    limit = None if study.budget.minutes is None else time.monotonic() + 60 * study.budget.minutes
    with lock(out / LOCK, wait=False):
        if study.match is not None and study.match.by == "seconds":  # another run may have chosen sizes in the meantime
            check_folder(out, study, planned, contents.digests)
        remove_partials(out)
        withdraw(out)
        machine = environment(source, command or [])

        progress = Progress(out, report)

        def ended(trial: Trial) -> None:
            if search is not None:
                search.update()
            progress.ended(trial)

        announce(planned)
        prepared: set[str] = set()
        for trials in rounds(out, study, planned, only):
            prepare(out, study, [trial for trial in trials if trial.name not in prepared], retry)
            prepared |= {trial.name for trial in trials}
            write_json(out / DATA, contents.digests)
            write_json(out / ENVIRONMENT, machine)
            chosen = [trial for trial in trials if only is None or not trial.variants.isdisjoint(only)]
            waiting = [trial.name for trial in chosen if TrialFolder(out, trial.name).read().status not in ("done", "failed")]
            progress.expect(len(waiting) if search is None else search.left)
            queue = iter(waiting) if search is None else search.queue(waiting)
            run_trials(out, queue, backend, jobs, limit, ended)
        withdraw(out)
    return trials_of(out)


def make_executor(kind: str, work: Work, settings: Mapping[str, Any]) -> Executor:
    """The executor that `kind` names; `InputError` if its package or the cluster is missing."""
    cluster = cluster_of(kind, settings)
    return Processes(work) if cluster is None else Jobs(work, settings, cluster)


def check_only(study: StudySpec, only: Collection[str]) -> None:
    """Raise `InputError` unless `only` names variants of a study that is not a search."""
    if study.search is not None:
        raise InputError(Problem("only", "a study with a search", "a study without one, in which variants can be chosen"))
    for name in only:
        if name not in study.arms:
            raise InputError(Problem("only", shorten(name), "a variant of the study", suggest(name, study.arms)))


def prepare(out: Path, study: StudySpec, planned: list[Trial], retry: bool) -> None:
    """Write the study and its planned trials. Existing trials keep their status, unless failed ones are to be retried."""
    write_json(out / STUDY, study.document())
    existing = {trial.name: trial for trial in trials_of(out)}
    for trial in planned:
        folder, known = TrialFolder(out, trial.name), existing.get(trial.name)
        if known is None:
            folder.write(trial)
        elif known != updated(known, trial, retry):
            with folder.locked():  # a process of a killed run may still be running it
                folder.write(updated(folder.read(), trial, retry))
        if known is not None and known.status == "done":  # its process may have been killed before it removed them
            shutil.rmtree(folder.checkpoints, ignore_errors=True)


def updated(known: Trial, planned: Trial, retry: bool) -> Trial:
    """A known trial with what may change between runs, and planned again if it has failed and is to be retried."""
    known = known.at("planned") if retry and known.status == "failed" else known
    return known.model_copy(
        update={
            name: getattr(planned, name)
            for name in ("number", "also", "remarks", "spec", "match", "training", "sources", "costs")
        }
    )


def run_trials(
    out: Path, queue: Iterator[str], executor: Executor, jobs: int, limit: float | None, ended: Callable[[Trial], None]
) -> None:
    """Run the trials named by `queue` in its order, at most `jobs` at once; start none after `limit` on the monotonic clock, or
    if the run is asked to stop."""
    try:
        while (stop := requested(out)) is not Stop.NOW:
            late = stop is not None or (limit is not None and time.monotonic() > limit)
            while len(executor.running) < jobs and not late and (name := next(queue, None)) is not None:
                executor.start(name)
            if not executor.running:
                return
            for name, outcome in executor.wait(PAUSE):
                ended(settle(TrialFolder(out, name), outcome))
    finally:
        executor.stop()


def settle(folder: TrialFolder, outcome: str) -> Trial:
    """The trial as its process left it; failed, with `outcome` as the error, if the process died before recording an end."""
    trial = folder.read()
    if trial.status not in ("done", "failed"):
        trial = trial.at("failed", outcome)
        folder.write(trial)
    return trial
