"""Running a study's trials, each in a process of its own, and going on where an earlier run stopped."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from pairform.experiments.execution.cluster import Jobs
from pairform.experiments.execution.environment import environment
from pairform.experiments.execution.processes import Processes
from pairform.experiments.execution.worker import Work
from pairform.experiments.results.records import DATA, ENVIRONMENT, LOCK, STUDY, Trial, TrialFolder, trials_of
from pairform.experiments.results.writing import check_links, lock, remove_partials, write_json
from pairform.experiments.study.planning import check_room, plan_trials
from pairform.experiments.study.search import Search
from pairform.experiments.study.spec import StudySpec
from pairform.registry import PARTIAL, InputError, OutputError, Problem, output_path, read_json, shorten
from pairform.training.metrics import check_package

WHERE = ("local", "slurm", "submitit")
"""Processes of this machine, jobs of a Slurm cluster, or processes that submitit starts here as it would there."""
Report = Callable[[Trial], None]
"""Called with each trial that ended."""


class Executor(Protocol):
    """What trials are run by."""

    @property
    def working(self) -> int:
        """How many trials it is at work on."""
        ...

    def start(self, name: str) -> None: ...

    def wait(self) -> list[tuple[str, str]]:
        """The trials that ended since, at least one; and what is to be said of one that left no word itself."""
        ...

    def stop(self) -> None:
        """End all that it is at work on."""
        ...


class Queue(Protocol):
    """What trials are run, in which order."""

    def begin(self, waiting: list[str]) -> None:
        """Start with these, which are planned and not done."""
        ...

    def next(self) -> str | None:
        """The next one's name; none if there is none now."""
        ...

    def ended(self, trial: Trial) -> None: ...


class Listed:
    """Trials in the order in which they were planned."""

    def begin(self, waiting: list[str]) -> None:
        self.waiting = iter(waiting)

    def next(self) -> str | None:
        return next(self.waiting, None)

    def ended(self, trial: Trial) -> None:
        """Nothing follows from it."""


def run_study(
    study: StudySpec,
    out: Path,
    *,
    source: Path,
    jobs: int = 1,
    retry: bool = False,
    executor: str = "local",
    cluster: Mapping[str, Any] | None = None,
    tensorboard: bool = False,
    command: list[str] | None = None,
    report: Report = lambda trial: None,
) -> list[Trial]:
    """Run every trial that is not done yet and return them all. `source` is the folder that paths of the data begin at.

    A trial that fails is recorded and does not stop the others; with `retry` failed ones are begun anew. Numbers do not
    depend on `jobs`, nor on how often a run was interrupted: trials end with the process that called this, however it ends,
    but for jobs of a cluster. `cluster` are settings of Slurm's, such as `partition`; with `tensorboard` metrics are logged
    for it too, into each trial's folder.

    Raises `PairformError` before the first trial if the study cannot be run, or `out` holds another one.
    """
    if not isinstance(jobs, int) or isinstance(jobs, bool) or jobs < 1:
        raise InputError(Problem("jobs", shorten(jobs), "a whole number, 1 or more"))
    if tensorboard:
        check_package("tensorboardX", "tensorboard")
    out = output_path(out)
    work = Work(out, source.absolute(), tensorboard)
    chosen = make_executor(executor, work, cluster or {})
    check_links(out)
    contents = study.data.gather(source)
    search = None if study.search is None else Search(study, study.search, source, contents, out)
    planned = plan_trials(study, source, contents) if search is None else search.planned
    check_folder(out, study, planned, contents.digests)
    check_room(out, planned if search is None else search.most)
    out.mkdir(parents=True, exist_ok=True)
    with lock(out / LOCK, wait=False):
        remove_partials(out)
        prepare(out, study, planned, retry)
        write_json(out / DATA, contents.digests)
        write_json(out / ENVIRONMENT, environment(source, command or []))
        waiting = [trial.name for trial in planned if TrialFolder(out, trial.name).read().status not in ("done", "failed")]
        queue: Queue = search or Listed()
        queue.begin(waiting)
        run_trials(out, queue, chosen, jobs, study.budget.minutes, report)
    return trials_of(out)


def make_executor(kind: str, work: Work, cluster: Mapping[str, Any]) -> Executor:
    """What `kind` names; a package or a cluster that is not there raises `InputError`."""
    if kind not in WHERE:
        raise InputError(Problem("executor", shorten(kind), " or ".join(WHERE)))
    if kind == "local":
        if cluster:
            raise InputError(Problem("slurm", ", ".join(cluster), "no settings of a cluster for trials of this machine"))
        return Processes(work)
    check_package("submitit", f"executor {kind}")
    return Jobs(work, cluster, "slurm" if kind == "slurm" else "local")


def check_folder(out: Path, study: StudySpec, planned: list[Trial], digests: dict[str, str]) -> None:
    """Whether `out` is free, or holds trials of this study: as they are planned now, or fewer."""
    if not (out / STUDY).is_file():
        if out.exists() and (not out.is_dir() or any(not begun(item.name) for item in out.iterdir())):
            raise OutputError(Problem(str(out), "something that is no study", "a new or empty folder, or this study's"))
        return
    kept = StudySpec.read(read_json(out / STUDY), where=str(out / STUDY))
    known = read_json(out / DATA) if (out / DATA).is_file() else digests
    if kept.data == study.data and known != digests:
        names = ", ".join(sorted(name for name in {*known, *digests} if known.get(name) != digests.get(name)))
        remedy = "Put them back, or choose another folder with --out."
        raise OutputError(Problem(str(out), f"trials on other contents of {names}", "the files as they were", remedy))
    plans = {trial.name: trial.plan for trial in planned}
    found = trials_of(out)
    other = [trial.name for trial in found if plans.get(trial.name) != trial.plan]
    if other:
        remedy = "Choose another folder with --out, or remove this one."
        names = ", ".join(other[:3]) + (", ..." if len(other) > 3 else "")
        raise OutputError(Problem(str(out), f"trials that this study does not plan so ({names})", "this study's", remedy))
    if found and kept.data != study.data:
        raise OutputError(Problem(str(out), "trials on other data", "this study's", "Choose another folder with --out."))


def begun(name: str) -> bool:
    """Whether a file of that name is what a run leaves that ended before it wrote the study."""
    return name == LOCK or name.startswith(f".{STUDY}{PARTIAL}")


def prepare(out: Path, study: StudySpec, planned: list[Trial], retry: bool) -> None:
    """Write down what is to be run. Trials that are there keep what they reached."""
    write_json(out / STUDY, study.document())
    there = {trial.name: trial for trial in trials_of(out)}
    for trial in planned:
        folder, known = TrialFolder(out, trial.name), there.get(trial.name)
        if known is None:
            folder.write(trial)
        elif known.number != trial.number or (retry and known.status == "failed"):
            with folder.locked():  # a process of a killed run may be at work on it still
                known = folder.read()
                reached = known.at("planned") if retry and known.status == "failed" else known
                folder.write(reached.model_copy(update={"number": trial.number}))


def run_trials(out: Path, queue: Queue, executor: Executor, jobs: int, minutes: float | None, report: Report) -> None:
    """At most `jobs` at once, in order; after `minutes` no new one."""
    began = time.monotonic()
    try:
        while True:
            late = minutes is not None and time.monotonic() - began > 60 * minutes
            while executor.working < jobs and not late and (name := queue.next()) is not None:
                executor.start(name)
            if not executor.working:
                return
            for name, how in executor.wait():
                trial = settle(TrialFolder(out, name), how)
                queue.ended(trial)
                report(trial)
    finally:
        executor.stop()


def settle(folder: TrialFolder, how: str) -> Trial:
    """The trial as its process left it. One whose process died without a word has failed."""
    trial = folder.read()
    if trial.status not in ("done", "failed"):
        trial = trial.at("failed", how)
        folder.write(trial)
    return trial
