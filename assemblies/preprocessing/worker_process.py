"""A process that answers requests. It ends when the process that started it ends, however it ends."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pairform.registry import InputError, Problem

MEMORY = 2 << 30
"""Bytes that a process with a chat template may allocate."""
START = (
    "import sys; sys.path.insert(0, sys.argv[1]); from pairform.assemblies.preprocessing.worker_process import start; "
    "start(*sys.argv[2:])"
)
"""Program of a process. Python starts it without the current folder in its path, which may be a stranger's."""


class WorkerProcess:
    """One process, and this end of its pipes.

    work:   a function of a module, which the process calls with its ends of the pipes: for requests and for answers.
    where, expected, remedy: of the error if the process ends by itself.
    """

    def __init__(self, work: Callable[[Connection, Connection], None], where: str, expected: str, remedy: str = "") -> None:
        self.end = (where, expected, remedy)
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        self.out, self.into = Connection(ours_in, writable=False), Connection(ours_out, readable=False)
        root = str(Path(sys.modules["pairform"].__path__[0]).parent)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # Ctrl-C is for the main process, which ends it
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", START, root, work.__module__, work.__name__, str(theirs_in), str(theirs_out)],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs_in, theirs_out),
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            os.close(theirs_in)
            os.close(theirs_out)

    def send(self, value: object) -> None:
        """Send a request; `InputError` if the process has ended."""
        try:
            self.into.send(value)
        except OSError:
            raise self.ended() from None

    def receive(self) -> Any:
        """The next answer; `InputError` if the process has ended."""
        try:
            return self.out.recv()
        except (EOFError, OSError):
            raise self.ended() from None

    def ended(self) -> InputError:
        self.stop()
        code = self.process.returncode
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        where, expected, remedy = self.end
        return InputError(Problem(where, f"a process that ended with {how}", expected, remedy))

    def stop(self) -> None:
        """End the process: its pipe is closed, which it notices once it has finished its work."""
        self.into.close()
        self.out.close()
        self.process.terminate()
        self.process.wait()


def start(module: str, function: str, requests: str, answers: str) -> None:
    """The life of a process: it calls the function `work` of its `WorkerProcess`."""
    import importlib

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    work = getattr(importlib.import_module(module), function)
    try:
        work(Connection(int(requests), writable=False), Connection(int(answers), readable=False))
    except (EOFError, BrokenPipeError):  # the main process has ended
        return


def limit_memory() -> None:
    """Let this process allocate `MEMORY` bytes more than it has: a template that takes more gets a `MemoryError`."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:  # not Linux
        return
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
