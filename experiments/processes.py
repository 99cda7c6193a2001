"""Trials in processes of this machine, each in one of its own."""

import multiprocessing
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext, ForkServerProcess

from pairform.experiments.worker import Work, run_trial


class Processes:
    """Runs trials as processes that are forked from one."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.context = server()
        self.running: dict[int, tuple[str, ForkServerProcess]] = {}

    @property
    def working(self) -> int:
        return len(self.running)

    def start(self, name: str) -> None:
        process = self.context.Process(target=run_trial, args=(self.work, name), daemon=True)
        process.start()
        self.running[process.sentinel] = (name, process)

    def wait(self) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        for ended in wait(list(self.running)):
            assert isinstance(ended, int), "a process's sentinel"
            name, process = self.running.pop(ended)
            process.join()
            code = process.exitcode
            how = f"by signal {-code}" if code is not None and code < 0 else f"with exit code {code}"
            found.append((name, f"The trial's process was ended {how}."))
        return found

    def stop(self) -> None:
        for _, process in self.running.values():
            process.terminate()


def server() -> ForkServerContext:
    """Processes are forked from one that has imported all they need and has computed nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pairform.experiments.preload"])
    return context
