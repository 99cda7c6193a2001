"""Which wrong changes to a file the tests notice: `python -m tests.mutation FILE... --tests TEST...`.

Each mutant runs in a fork of a process that has loaded torch and transformers, and takes as long as its tests. No other process
sees it: choose tests that start none.
"""

import os
import random
import sys
import time
from argparse import ArgumentParser
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

from tests.mutation.mutants import Mutant, mutants


@dataclass
class Found:
    """How many mutants the tests noticed, of all that were run."""

    noticed: int = 0
    run: int = 0

    def __str__(self) -> str:
        return f"{self.noticed} of {self.run} mutants were noticed ({self.noticed / max(self.run, 1):.0%})."


def main() -> None:
    parser = ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="sources to change")
    parser.add_argument("--tests", nargs="+", required=True, metavar="TEST", help="what pytest runs for each mutant")
    parser.add_argument("--most", type=int, default=60, help="mutants of each file, drawn at random (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    import torch
    import transformers  # noqa: F401  # for every fork

    torch.set_num_threads(1)
    began = time.monotonic()
    if wait(start(None, "", options.tests), 600) != 0:
        sys.exit("The tests fail without any change.")
    limit = 3 * (time.monotonic() - began) + 10
    found = Found()
    for file in options.files:
        run(file, options, limit, found)
    print(found)


def run(file: Path, options: Any, limit: float, found: Found) -> None:
    """Some of the file's mutants, a few at a time. Those that are not noticed are printed."""
    every = list(mutants(file.read_text("utf-8")))
    drawn = random.Random(options.seed).sample(every, min(options.most, len(every)))
    running: dict[int, Mutant] = {}

    def collect() -> None:
        """Wait for the one that was started first."""
        process, mutant = next(iter(running.items()))
        del running[process]
        found.run += 1
        if wait(process, limit) != 0:
            found.noticed += 1
        else:
            print(f"{file}:{mutant.line}: {mutant.words} ({found})", flush=True)

    for mutant in sorted(drawn, key=lambda mutant: mutant.line):
        if len(running) >= options.jobs:
            collect()
        running[start(file, mutant.source, options.tests)] = mutant
    while running:
        collect()


def start(file: Path | None, source: str, tests: list[str]) -> int:
    """A process that runs the tests with `source` in the place of the file's."""
    process = os.fork()
    if process:
        return process
    os.setsid()
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    if file is not None:
        replace(file.resolve(), source)
    os._exit(int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *tests])))


def replace(file: Path, source: str) -> None:
    """Let the module of that file be compiled from `source`."""
    original = SourceFileLoader.get_code

    def get_code(self: Any, name: str) -> CodeType | None:
        if Path(self.path).resolve() == file:
            return compile(source, self.path, "exec")
        return original(self, name)

    SourceFileLoader.get_code = get_code  # type: ignore[method-assign,assignment]  # of this process alone


def wait(process: int, limit: float) -> int:
    """The exit status; a process that takes longer than `limit` seconds is killed, and that counts as noticed."""
    ends = time.monotonic() + limit
    while time.monotonic() < ends:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.killpg(process, 9)
    os.waitpid(process, 0)
    return -9


if __name__ == "__main__":
    main()
