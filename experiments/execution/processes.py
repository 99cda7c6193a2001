"""Trials as local processes, one each, that end when the study's process ends."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess

from pairform.experiments.execution.worker import Work, run_trial
from pairform.training.isolation import isolated

BEGIN = b"begin"
PATIENCE = 10.0
"""Seconds that a terminated process is given to exit."""


class Processes:
    """Runs trials as processes forked from one server process, which has imported what they need and has computed nothing.

    Each holds the read end of a pipe whose write end only this process has. It begins when a message arrives and ends when the
    pipe is closed, however this process ended. A trial whose start was interrupted never begins.
    """

    def __init__(self, work: Work) -> None:
        self.work = work
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["pairform.experiments.execution.preload"])
        self.running: dict[int, tuple[str, ForkServerProcess]] = {}
        self.pipes: dict[int, Connection] = {}

    def start(self, name: str) -> None:
        start_server()
        reader, writer = self.context.Pipe(duplex=False)
        process = self.context.Process(target=run_attached, args=(reader, self.work, name), daemon=True)
        try:
            with isolated():
                process.start()
            self.pipes[process.sentinel] = writer
            self.running[process.sentinel] = (name, process)
            writer.send_bytes(BEGIN)
        except BaseException:
            writer.close()
            raise
        finally:
            reader.close()

    def wait(self, seconds: float) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        for ended in wait(list(self.running), seconds):
            assert isinstance(ended, int), "a process's sentinel"
            name, process = self.running.pop(ended)
            self.pipes.pop(ended).close()
            process.join()
            code = process.exitcode
            how = f"by signal {-code}" if code is not None and code < 0 else f"with exit code {code}"
            found.append((name, f"The trial's process was ended {how}."))
        return found

    def stop(self) -> None:
        """Terminate all trials, and wait until they have released their locks."""
        for writer in self.pipes.values():
            writer.close()
        for _, process in self.running.values():
            process.terminate()
        for _, process in self.running.values():
            process.join(PATIENCE)
        self.running.clear()
        self.pipes.clear()


def run_attached(study: Connection, work: Work, name: str) -> None:
    """Run a trial for as long as the study's process holds the other end of the pipe."""
    try:
        study.recv_bytes()
    except EOFError:
        return

    def end_with_the_study() -> None:
        wait([study])
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=end_with_the_study, daemon=True).start()
    run_trial(work, name)


def start_server() -> None:
    with isolated():
        resource_tracker.ensure_running()  # first: its start unblocks the signals that are blocked below
        with interrupts_blocked():
            forkserver.ensure_running()


@contextlib.contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Processes started in this block ignore Ctrl-C in a terminal: the study's process ends them itself."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
