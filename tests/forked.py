"""Processes forked from a server that has imported torch and pairform, which takes seconds of CPU time in each new Python."""

import importlib
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

PRELOAD = ["pairform.experiments.execution.preload", "tests.forked_preload"]
PATIENCE = 600
"""Seconds after which a process is killed."""


def server() -> ForkServerContext:
    """One server for each process of pytest, which lasts as long. A study of a test runs its trials from it too."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    return context


def fork(function: Callable[..., object], *arguments: Any, **environment: str) -> BaseProcess:
    """Call a function of a module in a new process, which has this one's environment with the changes of `environment`.

    Like one that a terminal starts, the process leads a session of its own and heeds Ctrl-C.
    """
    variables = {**os.environ, **environment}
    process = server().Process(target=call, args=(variables, function, arguments))
    process.start()
    return process


def call(environment: Mapping[str, str], function: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.setsid()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    importlib.import_module("torch").set_num_threads(1)
    function(*arguments)


def start_pairform(*words: object, said: Path, **environment: str) -> BaseProcess:
    """The command `pairform` with these words, which prints into the file `said`."""
    return fork(run_command, list(map(str, words)), said, **environment)


def run_command(words: list[str], said: Path) -> None:
    with said.open("w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    sys.argv = ["pairform", *words]
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    importlib.import_module("pairform.cli.main").main()


def pairform_in_two(*words: object, said: Path, codes: tuple[int, int] = (0, 0)) -> list[str]:
    """The command in two connected processes, with the environment that torchrun gives them. Returns what each printed.

    Raises:
        AssertionError: a process did not end, or not with its exit code of `codes`.
    """
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    files = [said.with_name(f"{said.name}.{rank}") for rank in range(2)]
    processes = [
        start_pairform(*words, said=file, RANK=str(rank), LOCAL_RANK=str(rank), **shared) for rank, file in enumerate(files)
    ]
    found = tuple(ended(process) for process in processes)
    printed = [file.read_text() for file in files]
    assert found == codes, printed
    return printed


def ended(process: BaseProcess, seconds: float = PATIENCE) -> int:
    """Wait for the process. Returns its exit code, or minus the signal that ended it."""
    process.join(seconds)
    late = process.exitcode is None
    if late:
        kill_session(process)
    assert not late, f"it did not end in {seconds} s"
    assert process.exitcode is not None
    return process.exitcode


def kill_session(process: BaseProcess) -> None:
    """Kill the process and all that it started."""
    assert process.pid is not None
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()  # it may not lead a session yet
    process.join()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
