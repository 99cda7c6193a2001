"""Running a study's trials, each in a process of its own, and going on where an earlier run stopped."""

import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

from pairform.experiments.environment import environment
from pairform.experiments.planning import check_space, plan_trials
from pairform.experiments.records import DATA, ENVIRONMENT, STUDY, TRIALS, Trial, TrialFolder, lock, trials_of, write_json
from pairform.experiments.study_spec import StudySpec
from pairform.experiments.worker import run_trial
from pairform.registry import InputError, OutputError, Problem, read_json

Report = Callable[[Trial], None]
"""Called with each trial that ended."""


def run_study(
    study: StudySpec,
    out: Path,
    *,
    source: Path,
    jobs: int = 1,
    retry: bool = False,
    command: list[str] | None = None,
    report: Report = lambda trial: None,
) -> list[Trial]:
    """Run every trial that is not done yet and return them all. `source` is the folder that paths of the data begin at.

    A trial that fails is recorded and does not stop the others; with `retry` failed ones are begun anew. Numbers do not
    depend on `jobs`, nor on how often a run was killed.

    Raises `PairformError` before the first trial if the study cannot be run, or `out` holds another one.
    """
    if jobs < 1:
        raise InputError(Problem("jobs", str(jobs), "1 or more"))
    contents = study.data.gather(source)
    planned = plan_trials(study, source, contents)
    check_folder(out, study, planned, contents.digests)
    check_space(out, planned)
    (out / TRIALS).mkdir(parents=True, exist_ok=True)
    with lock(out / ".lock", wait=False):
        prepare(out, study, planned, retry)
        write_json(out / DATA, contents.digests)
        write_json(out / ENVIRONMENT, environment(source, command or []))
        waiting = [trial.name for trial in planned if TrialFolder(out, trial.name).read().status not in ("done", "failed")]
        run_processes(out, source.absolute(), waiting, jobs, study.budget.minutes, report)
    return trials_of(out)


def check_folder(out: Path, study: StudySpec, planned: list[Trial], digests: dict[str, str]) -> None:
    """Whether `out` is free, or holds trials of this study: as they are planned now, or fewer."""
    if not (out / STUDY).is_file():
        if out.exists() and (not out.is_dir() or any(item.name != ".lock" for item in out.iterdir())):
            raise OutputError(Problem(str(out), "something that is no study", "a new or empty folder, or this study's"))
        return
    kept = StudySpec.model_validate_json((out / STUDY).read_text("utf-8"))
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


def run_processes(out: Path, source: Path, names: list[str], jobs: int, minutes: float | None, report: Report) -> None:
    """At most `jobs` processes at once, in order; after `minutes` no new one."""
    context = server()
    running: dict[int, tuple[str, ForkServerProcess]] = {}
    waiting = list(reversed(names))
    began = time.monotonic()
    try:
        while waiting or running:
            late = minutes is not None and time.monotonic() - began > 60 * minutes
            while waiting and len(running) < jobs and not late:
                process = context.Process(target=run_trial, args=(out, source, name := waiting.pop()), daemon=True)
                process.start()
                running[process.sentinel] = (name, process)
            if not running:
                return
            for ended in wait(list(running)):
                assert isinstance(ended, int), "a process's sentinel"
                name, process = running.pop(ended)
                process.join()
                report(settle(TrialFolder(out, name), process.exitcode))
    finally:
        for _, process in running.values():
            process.terminate()


def server() -> ForkServerContext:
    """Processes are forked from one that has imported all they need and has computed nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pairform.experiments.preload"])
    return context


def settle(folder: TrialFolder, code: int | None) -> Trial:
    """The trial as its process left it. One whose process died without a word has failed."""
    trial = folder.read()
    if trial.status not in ("done", "failed"):
        how = f"by signal {-code}" if code is not None and code < 0 else f"with exit code {code}"
        trial = trial.at("failed", f"The trial's process was ended {how}.")
        folder.write(trial)
    return trial
