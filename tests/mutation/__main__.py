"""Which wrong changes to a file the tests notice: `python -m tests.mutation FILE... --tests TEST...`.

Each mutant runs in a fork of a process that has imported what the tests import from other packages, and takes as long as its
tests. No other process sees it: choose tests that start none.
"""

import contextlib
import os
import random
import sys
import tempfile
import time
from argparse import ArgumentParser
from dataclasses import dataclass
from importlib import import_module
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any

import pytest
from hypothesis import Phase, settings

from tests.mutation.mutants import Mutant, mutants

OURS = ("pairform", "tests", "conftest")
"""Packages that are imported in each fork, not before."""


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
    parser.add_argument("--lines", nargs="+", type=int, metavar="LINE", help="no other lines (default: all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    if not preload(options.tests):
        sys.exit("The tests fail without any change.")
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
    every = [mutant for mutant in mutants(file.read_text("utf-8")) if options.lines is None or mutant.line in options.lines]
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


def preload(tests: list[str]) -> bool:
    """Run the tests in a fork, and import here what they imported there; whether they passed."""
    with tempfile.NamedTemporaryFile("r", encoding="utf-8") as names:
        status = wait(start(None, "", tests, names.name), 600)
        for name in names.read().split():
            if name.partition(".")[0] not in OURS:
                with contextlib.suppress(Exception):  # some can only be imported by their own package
                    import_module(name)
    return status == 0


def start(file: Path | None, source: str, tests: list[str], names: str | None = None) -> int:
    """A process that runs the tests with `source` in the place of the file's. It writes what it imported to `names`."""
    process = os.fork()
    if process:
        return process
    os.setsid()
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    if file is not None:
        replace(file.resolve(), source)
    quick = settings(settings.get_profile("default"), deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate])
    settings.register_profile("quick", quick)  # a failure need not be made small
    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--hypothesis-profile=quick"]
    status = int(pytest.main([*options, *tests]))
    if names is not None:
        Path(names).write_text("\n".join(sys.modules), "utf-8")
    os._exit(status)


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
